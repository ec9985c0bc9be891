/*
 * A FUSE program for tests: passes one directory of files on, and locks the files behind.
 *
 *	locker [options] directory mountpoint
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
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

static int behind;

static const char *
name_of(const char *path)
{
	return path[1] != '\0' ? path + 1 : ".";
}

static int
locker_getattr(const char *path, struct stat *st, struct fuse_file_info *fi)
{
	(void)fi;
	return fstatat(behind, name_of(path), st, AT_SYMLINK_NOFOLLOW) != 0 ? -errno : 0;
}

static int
locker_readdir(const char *path, void *buf, fuse_fill_dir_t fill, off_t offset,
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
locker_open(const char *path, struct fuse_file_info *fi)
{
	int fd = openat(behind, name_of(path), fi->flags & ~O_NOFOLLOW);

	if (fd < 0)
		return -errno;
	fi->fh = (uint64_t)fd;
	return 0;
}

static int
locker_release(const char *path, struct fuse_file_info *fi)
{
	(void)path;
	close((int)fi->fh);
	return 0;
}

static int
locker_read(const char *path, char *buf, size_t size, off_t offset, struct fuse_file_info *fi)
{
	ssize_t n = pread((int)fi->fh, buf, size, offset);

	(void)path;
	return n < 0 ? -errno : (int)n;
}

static int
locker_lock(const char *path, struct fuse_file_info *fi, int cmd, struct flock *lock)
{
	(void)path;
	lock->l_pid = 0; /* as open file descriptions want it */
	cmd = cmd == F_GETLK ? F_OFD_GETLK : cmd == F_SETLK ? F_OFD_SETLK : F_OFD_SETLKW;
	return fcntl((int)fi->fh, cmd, lock) != 0 ? -errno : 0;
}

static int
locker_flock(const char *path, struct fuse_file_info *fi, int op)
{
	(void)path;
	return flock((int)fi->fh, op) != 0 ? -errno : 0;
}

static const struct fuse_operations operations = {
	.getattr = locker_getattr,
	.readdir = locker_readdir,
	.open = locker_open,
	.release = locker_release,
	.read = locker_read,
	.lock = locker_lock,
	.flock = locker_flock,
};

int
main(int argc, char **argv)
{
	if (argc < 3)
		return 2;
	behind = open(argv[argc - 2], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (behind < 0)
		return 1;
	argv[argc - 2] = argv[argc - 1];
	argv[argc - 1] = NULL;
	return fuse_main(argc - 1, argv, &operations, NULL);
}
