"""What the packet tests share: the network around the device, frames, and the P4Runtime client."""
