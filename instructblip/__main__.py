"""``python -m instructblip``."""

import sys

from instructblip.cli import main

sys.exit(main())
