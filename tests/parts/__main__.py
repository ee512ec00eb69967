"""`python -m tests.parts`: find or make every part, with progress; exit status 1 and one sentence when one is
missing.
"""

import platform
import sys
from pathlib import Path

from tests.parts import PartError, find_dataplaneapi, find_haproxy, find_helm
from tests.parts.cache import say, short


def main() -> int:
    say("python", f"using {short(Path(sys.prefix))} (Python {platform.python_version()})")
    try:
        find_haproxy()
        find_dataplaneapi()
        find_helm()
    except PartError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
