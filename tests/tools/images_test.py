#!/usr/bin/env python3
"""Goal: every test image is what MANIFEST says, good ones are good, damaged ones are damaged.
Method: make them all from their recipes, twice, in different time zones; then ask fsck.fat about each."""

import os
import shutil
import subprocess
import sys

SOURCE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
MAKER = os.path.join(SOURCE, "images", "make_images.py")
FSCK = shutil.which("fsck.fat", path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
DAMAGED = ("damaged-", "dirty-", "truncated-", "not-fat-")

# Good volumes that fsck.fat 4.2 cannot or will not do, with what it says.
BEYOND_FSCK = {
    "fat16-three-fats": "only 1 or 2 FATs are supported",
    "fat32-four-fats": "only 1 or 2 FATs are supported",
    "fat32-active-fat-1": "FATs differ",
    "fat32-no-backup": "There is no backup boot sector",
    "fat32-no-fsinfo": "FSINFO sector has bad magic",
    "fat32-fsinfo-unknown": "Free cluster summary",
}
# Damage that fsck.fat 4.2 says nothing about, or shrugs off: here the drivers are what is tested.
FSCK_IS_CONTENT = {
    "damaged-active-fat-out-of-range", "damaged-backup-out-of-range", "damaged-boot-differs-from-backup",
    "damaged-bpb-media", "damaged-bpb-no-signature", "damaged-fsinfo-next-out-of-range", "damaged-hard-errors-fat32",
    "damaged-label-in-subdirectory", "damaged-lfn-checksum", "damaged-lfn-lone-surrogate", "damaged-lfn-order",
    "damaged-lfn-ordinal-63", "damaged-lfn-slash", "damaged-lfn-without-last", "damaged-two-labels",
    "damaged-version-not-zero",
}


def make(directory, time_zone):
    return subprocess.run([sys.executable, MAKER, directory], env={**os.environ, "TZ": time_zone}, check=False).returncode


def fsck_complaints(directory):
    complaints = []
    for file in sorted(os.listdir(directory)):
        name = file.removesuffix(".img")
        result = subprocess.run([FSCK, "-n", os.path.join(directory, file)], capture_output=True, text=True, timeout=60,
                                errors="replace", check=False)
        said = result.stdout + result.stderr
        if name in BEYOND_FSCK:
            if BEYOND_FSCK[name] not in said:
                complaints.append(f"{name}: fsck.fat should say \"{BEYOND_FSCK[name]}\": {said}")
        elif name.startswith(DAMAGED) and name not in FSCK_IS_CONTENT:
            if result.returncode == 0:
                complaints.append(f"{name}: fsck.fat finds nothing wrong: {said}")
        elif result.returncode != 0:
            complaints.append(f"{name}: fsck.fat complains: {said}")
    return complaints


def main():
    directory = sys.argv[1]
    shutil.rmtree(directory, ignore_errors=True)
    for time_zone in ("UTC", "Asia/Tokyo"):
        code = make(directory, time_zone)
        if code != 0:
            return code
    complaints = fsck_complaints(directory)
    print("\n".join(complaints))
    print(f"{len(os.listdir(directory))} images, {len(complaints)} of them not as their names say")
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
