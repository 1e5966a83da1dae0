"""The web page: a prompt, live previews of the image at every scale, and the request's timeline."""
