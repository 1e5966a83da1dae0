"""The web page for people: a prompt, a picture that grows scale by scale, and where its time went."""
