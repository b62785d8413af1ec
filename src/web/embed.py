#!/usr/bin/env python3
"""Turns the files of the live page into C++: embed.py OUTPUT FILE..., for src/web_files.h."""

import pathlib
import sys

CONTENT_TYPES = {".html": "text/html; charset=utf-8", ".css": "text/css; charset=utf-8",
                 ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml"}


def main():
    output, *names = map(pathlib.Path, sys.argv[1:])
    arrays, entries = [], []
    for number, path in enumerate(names):
        content = path.read_bytes()
        lines = [", ".join(str(byte) for byte in content[at:at + 32]) for at in range(0, len(content), 32)]
        arrays.append(f"constexpr unsigned char kFile{number}[] = {{\n    " + ",\n    ".join(lines) + "};\n")
        entries.append(f'    {{"{path.name}", "{CONTENT_TYPES[path.suffix]}", text(kFile{number})}},\n')
    output.write_text(
        "// The files of src/web. Made by src/web/embed.py.\n"
        '#include "src/web_files.h"\n\n'
        "namespace wbfat::daemon {\n\nnamespace {\n\n"
        "template <typename Bytes>\nstd::string_view text(const Bytes& bytes) {\n"
        "    return {reinterpret_cast<const char*>(bytes), sizeof(bytes)};\n}\n\n"
        + "".join(arrays) + "\n}  // namespace\n\n"
        "std::span<const WebFile> web_files() {\n    static const WebFile kFiles[] = {\n"
        + "".join("    " + entry for entry in entries)
        + "    };\n    return kFiles;\n}\n\n}  // namespace wbfat::daemon\n", encoding="utf-8")


if __name__ == "__main__":
    main()
