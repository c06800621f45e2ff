"""Prints when a label occurs in files, and which labels each file has most of.

python examples/tag_files.py LABEL FILE...
"""

import sys

from perceiverd import tag
from perceiverd.wire.records import FileEvent, FileSummary


def main(label: str, *files: str) -> None:
    tagging = tag(files, skip_errors=True)
    for record in tagging:
        match record:
            case FileEvent(name=name) if name == label:
                print(f"{record.file}: {name} from {record.start_s:.1f} to {record.end_s:.1f} s, {record.peak:.2f}")
            case FileSummary():
                print(f"{record.file}: {', '.join(each.name for each in record.labels)}")
    for file, error in tagging.errors.items():
        print(f"{file} failed: {error}", file=sys.stderr)


if __name__ == "__main__":
    main(*sys.argv[1:])
