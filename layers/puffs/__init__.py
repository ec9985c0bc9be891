"""puffs: vnode operations as frames over a carrier, kernel half and server half."""
