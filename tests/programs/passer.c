/*
 * A FUSE program for tests: passes one directory of files on, with locks, holes, copies and renames
 * with flags, which it notes in the file PASSER_LOG.
 *
 *	passer [options] directory mountpoint
 *
 * Locks of fcntl(2) become those of open file descriptions, so that all can be seen from outside;
 * perfuse has each owner lock through an open of its own.
 */
#define FUSE_USE_VERSION 31
#define _GNU_SOURCE

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fuse.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

static int behind;
static int noted = -1;

static const char *
name_of(const char *path)
{
	return path[1] != '\0' ? path + 1 : ".";
}

static void
note(const char *what)
{
	if (noted >= 0)
		dprintf(noted, "%s\n", what);
}

static int
passer_getattr(const char *path, struct stat *st, struct fuse_file_info *fi)
{
	(void)fi;
	return fstatat(behind, name_of(path), st, AT_SYMLINK_NOFOLLOW) != 0 ? -errno : 0;
}

static int
passer_readdir(const char *path, void *buf, fuse_fill_dir_t fill, off_t offset,
    struct fuse_file_info *fi, enum fuse_readdir_flags flags)
{
	DIR *dir = fdopendir(openat(behind, ".", O_RDONLY | O_DIRECTORY));
	struct dirent *entry;

	(void)path, (void)offset, (void)fi, (void)flags;
	if (dir == NULL)
		return -errno;
	while ((entry = readdir(dir)) != NULL)
		fill(buf, entry->d_name, NULL, 0, 0);
	closedir(dir);
	return 0;
}

static int
passer_open(const char *path, struct fuse_file_info *fi)
{
	int fd = openat(behind, name_of(path), fi->flags & ~O_NOFOLLOW);

	if (fd < 0)
		return -errno;
	fi->fh = (uint64_t)fd;
	return 0;
}

static int
passer_release(const char *path, struct fuse_file_info *fi)
{
	(void)path;
	close((int)fi->fh);
	return 0;
}

static int
passer_read(const char *path, char *buf, size_t size, off_t offset, struct fuse_file_info *fi)
{
	ssize_t n = pread((int)fi->fh, buf, size, offset);

	(void)path;
	return n < 0 ? -errno : (int)n;
}

static int
passer_lock(const char *path, struct fuse_file_info *fi, int cmd, struct flock *lock)
{
	(void)path;
	lock->l_pid = 0; /* as open file descriptions want it */
	cmd = cmd == F_GETLK ? F_OFD_GETLK : cmd == F_SETLK ? F_OFD_SETLK : F_OFD_SETLKW;
	return fcntl((int)fi->fh, cmd, lock) != 0 ? -errno : 0;
}

static int
passer_flock(const char *path, struct fuse_file_info *fi, int op)
{
	(void)path;
	return flock((int)fi->fh, op) != 0 ? -errno : 0;
}

static off_t
passer_lseek(const char *path, off_t offset, int whence, struct fuse_file_info *fi)
{
	off_t found = lseek((int)fi->fh, offset, whence);

	(void)path;
	note("lseek");
	return found < 0 ? -errno : found;
}

static ssize_t
passer_copy_file_range(const char *path, struct fuse_file_info *fi, off_t offset,
    const char *to, struct fuse_file_info *to_fi, off_t to_offset, size_t length, int flags)
{
	ssize_t n = copy_file_range((int)fi->fh, &offset, (int)to_fi->fh, &to_offset, length,
	    (unsigned int)flags);

	(void)path, (void)to;
	note("copy");
	return n < 0 ? -errno : n;
}

static int
passer_rename(const char *from, const char *to, unsigned int flags)
{
	note(flags != 0 ? "rename with flags" : "rename");
	return renameat2(behind, name_of(from), behind, name_of(to), flags) != 0 ? -errno : 0;
}

static const struct fuse_operations operations = {
	.getattr = passer_getattr,
	.readdir = passer_readdir,
	.open = passer_open,
	.release = passer_release,
	.read = passer_read,
	.lock = passer_lock,
	.flock = passer_flock,
	.lseek = passer_lseek,
	.copy_file_range = passer_copy_file_range,
	.rename = passer_rename,
};

int
main(int argc, char **argv)
{
	if (argc < 3)
		return 2;
	behind = open(argv[argc - 2], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (behind < 0)
		return 1;
	if (getenv("PASSER_LOG") != NULL)
		noted = open(getenv("PASSER_LOG"), O_WRONLY | O_APPEND | O_CLOEXEC);
	argv[argc - 2] = argv[argc - 1];
	argv[argc - 1] = NULL;
	return fuse_main(argc - 1, argv, &operations, NULL);
}
