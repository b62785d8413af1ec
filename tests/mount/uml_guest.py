"""The first and only process inside User-Mode Linux: does what a job file says on volumes mounted by the kernel's vfat,
writes the results, halts. Started by user_mode_linux.py as `python3 uml_guest.py DIRECTORY`.

The root is the host's, read-only, through hostfs; DIRECTORY has job.json, an empty directory mnt to mount on, and an
empty directory out, where results.json goes."""

import ctypes
import json
import os
import sys
import traceback

sys.dont_write_bytecode = True
import fat_tree

LIBC = ctypes.CDLL(None, use_errno=True)
MS_RDONLY = 1
LINUX_REBOOT_CMD_POWER_OFF = 0x4321FEDC
FINIT_MODULE = {"x86_64": 313, "aarch64": 273}
MODULES = ["fat/fat.ko", "fat/vfat.ko", "nls/nls_cp437.ko", "nls/nls_iso8859-1.ko", "nls/nls_utf8.ko"]


def checked(result, what):
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), what)


def mount(source, target, kind, flags=0, data=None):
    checked(LIBC.mount(source.encode(), target.encode(), kind.encode(), flags, data.encode() if data else None),
            f"mount {kind} {source}")


def load_modules():
    for module in MODULES:
        path = f"/usr/lib/uml/modules/{os.uname().release}/kernel/fs/{module}"
        if os.path.exists(path):  # else it is built in
            descriptor = os.open(path, os.O_RDONLY)
            checked(LIBC.syscall(FINIT_MODULE[os.uname().machine], descriptor, b"", 0), path)
            os.close(descriptor)


def write_and_sync(path, data):
    descriptor = os.open(path, os.O_CREAT | os.O_WRONLY)
    os.write(descriptor, data)
    os.fsync(descriptor)
    os.close(descriptor)


def run(step, root):
    """Does one job on the volume mounted at `root`."""
    answer = {}
    for what in step["do"]:
        if what == "list":
            answer[what] = fat_tree.listing(root)
        elif what == "space":
            answer[what] = fat_tree.space(root)
        elif what == "grow":
            fat_tree.Grower(root, step["seed"]).grow()
        elif what == "probe":
            answer[what] = fat_tree.probes(root)
        elif what == "create":
            write_and_sync(os.path.join(root, "made by the kernel.txt"), b"the kernel was here")
        elif what == "remove":
            os.unlink(os.path.join(root, "made by the kernel.txt"))
        else:
            raise ValueError(what)
    return answer


def run_on_device(number, step, mountpoint):
    """Mounts, runs, unmounts. A failure is an answer too: the other volumes still have their turn."""
    mounted = False
    try:
        mount(f"/dev/ubd{chr(ord('a') + number)}", mountpoint, "vfat", MS_RDONLY if step["read_only"] else 0, step["options"])
        mounted = True
        return run(step, mountpoint)
    except Exception:
        return {"error": f"{step['image']}: {traceback.format_exc()}"}
    finally:
        if mounted:
            checked(LIBC.umount2(mountpoint.encode(), 0), "umount")


def kernel_messages():
    """The kernel's log so far, without levels and times."""
    messages = []
    descriptor = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK)
    try:
        while True:
            record = os.read(descriptor, 8192).decode("utf-8", "replace")
            messages.append(record.split(";", 1)[-1].split("\n")[0])
    except BlockingIOError:
        return messages
    finally:
        os.close(descriptor)


def main(directory):
    mount("none", "/proc", "proc")
    mount("none", f"{directory}/out", "hostfs", data=f"{directory}/out")
    load_modules()
    with open(f"{directory}/job.json", encoding="utf-8") as file:
        job = json.load(file)
    results = [run_on_device(number, step, f"{directory}/mnt") for number, step in enumerate(job)]
    with open(f"{directory}/out/results.json", "w", encoding="ascii") as file:
        json.dump({"results": results, "messages": kernel_messages()}, file)


if __name__ == "__main__":
    try:
        main(sys.argv[1])
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os.sync()
        LIBC.reboot(LINUX_REBOOT_CMD_POWER_OFF)
