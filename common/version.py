"""The version of the server software: recipes, answers and logs name it."""

VERSION = "0.1.0"
