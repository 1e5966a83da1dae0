"""The whole cluster on one machine, under circus. It knows which processes there are, and nothing inside them."""
