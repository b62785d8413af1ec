// Into the background, the parent waiting for the verdict: its exit code says whether the mount
// succeeded.
#pragma once

namespace wbfat::daemon {

// The child's end of the pipe to the waiting parent; in the foreground a dummy.
class Verdict {
public:
    // Forks unless `foreground`; only the child (or the foreground process) returns. Before any
    // thread is started. The parent exits with the code that the child reports, or kExitSystem if
    // the child dies without a word.
    explicit Verdict(bool foreground);
    ~Verdict();
    Verdict(const Verdict&) = delete;
    Verdict& operator=(const Verdict&) = delete;

    // The mount stands (0) or failed (an exit code). Success also detaches from the terminal.
    void report(int exit_code);
    bool in_background() const {
        return write_end_ >= 0 || reported_;
    }

private:
    int write_end_ = -1;
    bool reported_ = false;
};

}  // namespace wbfat::daemon
