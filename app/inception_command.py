"""The command `python inception.py --download`."""

import inception
from app.failures import Parser, reported


def main(argv=None):
    parser = Parser(prog="inception.py", description="Fetch and verify the "
                                     "weights of Inception-v3, which FID needs.")
    parser.add_argument("--download", action="store_true",
                        help=f"fetch the weights to {inception.cached_file()}")
    with reported("inception.py"):
        args = parser.parse_args(argv)
        if args.download and not inception.cached_file().exists():
            inception.download()
        inception.load_weights()
        print(f"{inception.cached_file()}: Inception's published weights, verified")
