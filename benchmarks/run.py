"""All CPU rows in one page: `make bench`. The long rows (`python -m benchmarks.classifier --long`) stand alone."""

from __future__ import annotations

import argparse

from benchmarks import autoencoder, classifier, masking
from benchmarks.timing import write_page

if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    sections = [autoencoder.measure(), classifier.network(), classifier.boosting(2000, 4, 100), masking.measure()]
    path = write_page("run", sections)
    print(path.read_text())
    print(path)
