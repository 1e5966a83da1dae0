"""Tools to audit the release, and to run stages on other inference servers."""
