"""The command `python inception.py --download`."""
import argparse
import sys

import inception
from formats.files import InputError


def main(argv=None):
    parser = argparse.ArgumentParser(prog="inception.py", description="Fetch and verify the "
                                     "weights of Inception-v3, which FID needs.")
    parser.add_argument("--download", action="store_true",
                        help=f"fetch the weights to {inception.cached_file()}")
    args = parser.parse_args(argv)
    try:
        if args.download and not inception.cached_file().exists():
            inception.download()
        inception.load_weights()
    except InputError as error:
        sys.exit(f"inception.py: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
    print(f"{inception.cached_file()}: Inception's published weights, verified")
