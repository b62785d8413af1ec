// Order on disk: transactions, phases, the group commit.
//
// Every change of metadata happens inside a Transaction. Nothing of it reaches the disk until a
// commit, which lets no transaction run and then writes in phases, with a device flush between
// them, but for the last, whose blocks the next commit flushes:
//
//   - kAllocate: data of files that grew, new chains (not yet linked), new directory clusters
//   - kLink: old tails of files -> new chains, when one FAT sector did not hold both
//   - kEntry: new entries, sizes, starts, ".."; erased names whose clusters stay until kFree; old
//     tails of directories -> new clusters, after kLink because the names in there rely on it
//   - kUnlink: old names of renames; names of directories that something was renamed out of
//   - kCut: new end-of-chain marks, and tails linked anew after a shrink; after kUnlink because
//     an old name shows the old size
//   - kFree: freed clusters, FSINFO, final sizes of files that shrank and grew again
//
// A change for kAllocate or kEntry is made in the device mapping's page at once and its blocks are
// remembered for the phase. A change for a later phase is held back: FAT values in an overlay that
// FatTable::get consults, erased slots in a list that Directory consults; the commit puts them into
// the pages in their phase. So at any power cut the volume has at worst lost clusters, a dirty
// mark, or both names of a rename in flight.
//
// Invariants
//   - O1. The dirty mark is durable before the first change of a commit interval reaches the
//     device, and cleared only by unmount or remount read-only with nothing pending and no
//     unreported write error.
//   - O2. What others depend on is written in kAllocate at the latest: a sector of the FAT with a
//     new chain never waits for a later phase it is remembered for too; directory sectors of
//     reachable clusters are kEntry only, those of a cluster nothing reaches yet kAllocate until
//     the commit.
//   - O3. A held-back change is never overwritten: whoever needs the entry again (a name erased in
//     kUnlink re-created, an old tail changed twice) commits first. FatTable::is_held_back and
//     Directory say so.
//   - O4. A freed cluster becomes allocatable when its commit is through: what led to it is
//     durably gone, and its free entry is in the page and written. That may still be lost: it is
//     flushed before anything leads to the cluster's next use, with kAllocate of the next commit.
//   - O5. Both (all mirrored) FATs are written in the same phase, the first one first.
//   - O6. A failed phase stops the commit: nothing that depends on it is written; everything stays
//     pending and dirty.
//   - O7. Transactions do not nest, and nobody commits inside one.
//   - O8. One name is in one sector: a name erased in kEntry reappears before the commit in the
//     same sector only (Directory); anything else commits first.
//
// Locking: the transaction lock is a RwSem: shared by Transaction, exclusive in commit(). Order:
// inode i_rwsem -> transaction -> page locks -> fat_lock. Never start a transaction, commit or
// fsync with a page lock held; never commit inside a transaction. The commit takes no inode lock.
//
// Source: reliability.md 3.2 (R1-R12). Linux vfat has no such thing.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

#include "cache/base/result.h"
#include "cache/sync/sync.h"
#include "fs/geometry.h"
#include "fs/ordering_sink.h"

namespace wbfat::fs::inline WBFAT_RT {

class Inode;
class Volume;

class Ordering final : public MetadataSink {
public:
    explicit Ordering(Volume& volume);
    ~Ordering() override;
    Ordering(const Ordering&) = delete;
    Ordering& operator=(const Ordering&) = delete;

    // Makes everything changed before the call durable; concurrent callers share one commit. Data
    // written to the device before the call is durable then too: with nothing pending it is one
    // device flush. Context: sleeps. Locks: none held but inode locks; not inside a transaction.
    // Errors: the first write or flush error; the changes stay pending. EROFS after an emergency
    // stop.
    Result<> commit();
    // Commits only if no commit runs and something is pending: for the flusher.
    Result<> try_commit();
    // Has the committer thread do that, if there is so much pending that it should not wait for the
    // interval, or if the interval (commit=) is over. For callers who must not wait for
    // transactions to end: the flusher.
    void commit_if_large();
    void commit_if_due();
    [[nodiscard]] bool anything_pending() const;
    // The sequence number a change made now will be committed in, and whether it is durable
    // already: fsync of an inode whose last change is durable needs no commit.
    [[nodiscard]] std::uint64_t current_sequence() const;
    [[nodiscard]] bool is_durable(std::uint64_t sequence) const;

    // --- inside a Transaction ---

    // Bytes [offset, offset + length) of the device mapping were changed and are due in `phase`
    // (kAllocate or kEntry).
    void note_blocks(Phase phase, std::uint64_t device_offset_bytes,
                     std::uint64_t length_bytes) override;
    // Marks a cluster range as reachable only after this commit, so that note_blocks(kEntry) on it
    // becomes kAllocate.
    void note_new_directory_cluster(cluster_t cluster);
    // Runs `apply` in the named phase (any but kAllocate), under the exclusive lock; it
    // changes pages of the device mapping and calls note_applied for the blocks.
    void hold_back(Phase phase, std::function<Result<>()> apply) override;
    void note_applied(std::uint64_t device_offset_bytes, std::uint64_t length_bytes) override;
    // The inode's directory entry (or data that must precede it) is out of date: commit calls
    // Inode::commit_entry. The root has no entry and an unlinked inode none any more: they are not
    // noted.
    void note_inode(Inode& inode);
    // Keeps the inode in memory until the next commit is durable, whether it has an entry or not:
    // for a directory with names held back in kUnlink.
    void hold_inode(Inode& inode);
    // The inode was unlinked: its entry no longer matters.
    void forget_inode(Inode& inode);

    // The running task is inside a Transaction, or the one that commits.
    [[nodiscard]] bool in_transaction() const;

    // --- for the volume ---

    // commit() in spite of an emergency stop: the last try of an unmount.
    Result<> commit_stopped();
    // No commit from now on: EROFS.
    void stop();
    // Runs `work` while no transaction and no commit does. Locks: as commit.
    Result<> with_transactions_stopped(const std::function<Result<>()>& work);
    // Makes durable what the last commit freed. Under with_transactions_stopped.
    Result<> flush_freed();
    // The clean mark was written: the next transaction writes the dirty one first. Under
    // with_transactions_stopped.
    void state_is_clean();
    // Forgets everything pending, as a crash would; no commit afterwards.
    void drop_everything();

private:
    friend class Transaction;
    class Impl;
    std::unique_ptr<Impl> impl_;
};

// Holds the transaction lock shared for the scope of one operation's metadata changes.
// The first one after a clean state makes the dirty mark durable; `status()` is the result of that.
class SCOPED_CAPABILITY Transaction {
public:
    explicit Transaction(Volume& volume);
    ~Transaction();
    Transaction(const Transaction&) = delete;
    Transaction& operator=(const Transaction&) = delete;

    // Errors: EROFS on a read-only volume, EIO when the dirty mark could not be written. Check
    // before changing anything.
    Result<> status() const {
        return status_;
    }

private:
    Volume& volume_;
    Result<> status_;
};

}  // namespace wbfat::fs::inline WBFAT_RT
