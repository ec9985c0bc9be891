"""The host's end of a stack: what the kernel asks through FUSE becomes puffs operations.

session      mounting a file server, serving it, and ending that
hostmount    mount(2), fusermount3, and unmounting
device       /dev/fuse: requests read, replies and notifications written
service      the workers that take turns at it; interrupts: whose caller is to end
handlers     each request as operations of a file server
extents      space, holes and data of files; locking: locks of files
nodes        what the host knows; directories: what it reads through
attributes   how it sees them, and who asks
"""
