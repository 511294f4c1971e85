"""Where images and labels come from: one file for each kind of source. Standard library only, for the commands' help.

To add a kind, write a file here with `matches(source)` and `read(source)`, which returns a divided or undivided
DataSet, and add its line to SOURCES.
"""

NAMED = ("digits", "digits_segmentation", "mnist", "fashion_mnist", "cifar10")

# The module of each kind -> what a user gives, in the order in which they are asked.
SOURCES = {
    "named": ", ".join(NAMED),
    "tfds": "tfds:NAME",
    "masks": "a folder of images/ and masks/, or of train/, validation/, test/ with these",
    "folder": "a folder of class folders, or of train/, validation/, test/ with class folders",
    "arrays": "an .npz with x_train, y_train, x_test, y_test, or images, labels",
    "table": "a .csv or .tsv with the columns path, label (or labels) and perhaps split",
}


def accepted() -> str:
    """What a user may give as data, in one line for messages and for the commands' help."""
    return "; ".join(SOURCES.values())
