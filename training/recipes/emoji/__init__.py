"""The bundled checkpoint: emoji art in six styles from npm packages."""
