/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * The vnode pager: pages of regular files.
 *
 * ONE PAGER A FILE.  Mappings of a file must see each other's writes, whatever descriptors they were made
 * with, so the table below has one pager for each (st_dev, st_ino), as long as anything of it is mapped or
 * could not be written yet.  A descriptor that can do more than those before it (write; O_DIRECT) adds to
 * what the pager has; none is closed before the end, for transfers may be using it.
 *
 *		reads		writes
 *	[0]	ro or rw	rw		through the kernel's page cache
 *	[1]	ro or rw	rw		O_DIRECT, whole pages only
 *
 * Writing needs an open file description of our own, made by way of /proc: an O_APPEND that
 * the user sets on his would send our pages to the end of the file, and an fsync() of his would
 * take away the error that ours should have seen.  (And with O_NONBLOCK io_uring refuses to wait for the
 * disk.)  Where there is no /proc, or the file may not be opened any more, a duplicate serves.
 *
 * THE END OF THE FILE is wherever it is now.  Each read learns it from a short count; a write asks
 * first, and never moves it: of the last page only what belongs to the file is written.  (A file that
 * somebody cuts between the question and the write grows back to that page: there is no
 * system call that writes and does not extend.)  What lies beyond the end is BAD, and the rest of
 * the last page is zeros.
 */

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/stat.h>

#include "io.h"
#include "kern/assert.h"
#include "kern/lock.h"
#include "kern/slab.h"
#include "kern/sys.h"
#include "machdep.h"
#include "vm_object.h"
#include "vm_page.h"
#include "vnode.h"

/* An object's pages are counted in 32 bits; the last count is nobody's. */
#define NPAGES_MAX	UINT32_MAX

struct vnode {
	struct vm_pager pager;
	LIST_ENTRY(vnode) link;		/* in the table */
	uint64_t dev, ino;		/* constant */
	_Atomic int ro[2], rw[2];	/* descriptors, by `direct'; -1: none.  Set once, under the table's lock */
	_Atomic int seek;		/* the one of them whose offset nobody else uses; -1: none */
};

/* A transfer of vnode_start(). */
struct transfer {
	struct io io;
	struct vm_pager_io *pio;
};

static struct kmutex table_lock;	/* RANK_VNODE; guards what follows, and which descriptors there are */
static LIST_HEAD(, vnode) table;
static struct slab vnodes, transfers;

static inline struct vnode *
vnode_of(const struct vm_pager *p)
{
	return container_of(p, struct vnode, pager);
}

/* => at least one way to read there is */
static int
read_fd(const struct vnode *v)
{
	for (int direct = 1; direct >= 0; direct--) {
		if (v->rw[direct] >= 0)
			return v->rw[direct];
		if (v->ro[direct] >= 0)
			return v->ro[direct];
	}
	return -EBADF;
}

static int64_t
size_of(const struct vnode *v)
{
	struct sys_stat st;
	int error = sys_stat(read_fd(v), &st);

	return error != 0 ? error : (int64_t)st.size;
}

static enum vm_pager_result
result_of(int64_t error)
{
	return error == -EAGAIN || error == -EINTR || error == -ENOMEM ? VM_PAGER_AGAIN : VM_PAGER_ERROR;
}

/*
 * What came of a read: whole pages, and at the end of the file a part of one, whose rest
 * becomes zeros: the frame may hold another page's bytes.
 */
static enum vm_pager_result
read_result(const struct io *io, uint32_t *done)
{
	size_t rest = io->moved & PAGE_MASK;

	*done = (uint32_t)(io->moved >> PAGE_SHIFT);
	if (io->result < 0)
		return *done != 0 ? VM_PAGER_OK : result_of(io->result);
	if (rest != 0) {
		char *w = window_map(WINDOW_TARGET, io->m[*done]->pfn, 1);

		memset(w + rest, 0, PAGE_SIZE - rest);
		window_unmap(w);
		++*done;
	}
	return *done != 0 ? VM_PAGER_OK : VM_PAGER_BAD;
}

/* Likewise of a write.  A page that was written in part will be written again. */
static enum vm_pager_result
write_result(struct vnode *v, const struct io *io, uint32_t *done)
{
	if (io->result >= 0) {
		*done = (uint32_t)(round_page(io->len) >> PAGE_SHIFT);
		return VM_PAGER_OK;
	}
	*done = (uint32_t)(io->moved >> PAGE_SHIFT);
	if (*done != 0)
		return VM_PAGER_OK;
	atomic_store(&v->pager.error, (int)io->result);
	return result_of(io->result);
}

/*
 * Fill in a transfer of n pages from `offset'.
 * => false: there is nothing to move, and *r, *done say what that means.
 */
static bool
prepare(struct vnode *v, struct io *io, bool put, uint64_t offset, struct vm_page **m, uint32_t n,
    enum vm_pager_result *r, uint32_t *done)
{
	int64_t size;

	*io = (struct io){ .op = put ? IO_WRITE : IO_READ, .offset = offset << PAGE_SHIFT,
	    .len = (size_t)n << PAGE_SHIFT, .m = m, .n = n };
	if (!put) {
		io->fd = read_fd(v);
		return true;
	}
	size = size_of(v);
	if (size < 0) {
		atomic_store(&v->pager.error, (int)size);
		*r = VM_PAGER_ERROR;
		return false;
	}
	if ((uint64_t)size <= io->offset) {
		*done = n;		/* the file has no such pages any more */
		*r = VM_PAGER_OK;
		return false;
	}
	io->len = (size_t)MIN((uint64_t)io->len, (uint64_t)size - io->offset);
	io->fd = v->rw[0];
	if (v->rw[1] >= 0 && io->len >= PAGE_SIZE) {
		io->fd = v->rw[1];
		io->len &= ~PAGE_MASK;	/* the part of a page is left for the next call */
	}
	io->n = (uint32_t)(round_page(io->len) >> PAGE_SHIFT);
	return true;
}

static enum vm_pager_result
vnode_get(struct vm_pager *pager, uint64_t offset, struct vm_page **m, uint32_t n, uint32_t *done)
{
	enum vm_pager_result r;
	struct io io;

	(void)prepare(vnode_of(pager), &io, false, offset, m, n, &r, done);
	(void)io_run(&io);
	return read_result(&io, done);
}

static enum vm_pager_result
vnode_put(struct vm_pager *pager, uint64_t offset, struct vm_page **m, uint32_t n, uint32_t *done)
{
	struct vnode *v = vnode_of(pager);
	enum vm_pager_result r;
	struct io io;

	if (!prepare(v, &io, true, offset, m, n, &r, done))
		return r;
	(void)io_run(&io);
	return write_result(v, &io, done);
}

static void
finished(struct io *io)
{
	struct transfer *t = container_of(io, struct transfer, io);
	struct vm_pager_io *pio = t->pio;
	enum vm_pager_result r;
	uint32_t done = 0;

	if (pio->flush) {
		slab_free(&transfers, t);
		vm_pager_complete(pio, VM_PAGER_OK, pio->n);
		return;
	}
	r = pio->put ? write_result(vnode_of(pio->pager), io, &done) : read_result(io, &done);
	slab_free(&transfers, t);
	vm_pager_complete(pio, r, done);
}

static bool
vnode_start(struct vm_pager *pager, struct vm_pager_io *pio)
{
	struct transfer *t = slab_alloc(&transfers);
	enum vm_pager_result r;
	uint32_t done = 0;

	if (t == NULL)
		return false;
	t->pio = pio;
	t->io = (struct io){ .op = IO_FLUSH, .fd = vnode_of(pager)->rw[0],
	    .offset = pio->offset << PAGE_SHIFT, .len = (size_t)pio->n << PAGE_SHIFT };
	if (!pio->flush &&
	    !prepare(vnode_of(pager), &t->io, pio->put, pio->offset, pio->m, pio->n, &r, &done)) {
		slab_free(&transfers, t);
		vm_pager_complete(pio, r, done);
		return true;
	}
	t->io.done = finished;
	io_start(&t->io);
	return true;
}

/* To the kernel's page cache. */
static bool
vnode_put_copies(const struct vm_pager *pager)
{
	return vnode_of(pager)->rw[1] < 0;
}

static bool
vnode_has_page(struct vm_pager *pager, uint64_t offset)
{
	int64_t size = size_of(vnode_of(pager));

	/* Who cannot be told asks for the page, and learns why. */
	return size < 0 || offset << PAGE_SHIFT < (uint64_t)size;
}

static uint64_t
vnode_limit(struct vm_pager *pager)
{
	int64_t size = size_of(vnode_of(pager));

	return size < 0 ? pager->npages : ((uint64_t)size + PAGE_MASK) >> PAGE_SHIFT;
}

/* Only who may write asks: who cannot reads the zeros as fast as others. */
static uint64_t
vnode_hole(struct vm_pager *pager, uint64_t offset)
{
	struct vnode *v = vnode_of(pager);
	int fd = atomic_load(&v->seek);
	int64_t data, size;

	if (fd < 0)
		return 0;
	data = sys_seek_data(fd, (int64_t)(offset << PAGE_SHIFT));
	if (data == -ENXIO) {		/* there is none up to the end, or this is past the end */
		size = size_of(v);
		data = size > 0 ? (int64_t)round_page((uint64_t)size) : 0;
	}
	data >>= PAGE_SHIFT;
	return data > (int64_t)offset ? (uint64_t)data - offset : 0;
}

static int
vnode_sync(struct vm_pager *pager)
{
	return sys_fdatasync(vnode_of(pager)->rw[0]);
}

static const struct vm_pager_ops vnode_ops = {
	.name = "file",
	.get = vnode_get,
	.put = vnode_put,
	.has_page = vnode_has_page,
	.keeps = true,
	.start = vnode_start,
	.put_copies = vnode_put_copies,
	.limit = vnode_limit,
	.hole = vnode_hole,
	.sync = vnode_sync,
};

/*
 * Opening and closing
 */

static void
destroy(struct handle *h)
{
	struct vnode *v = vnode_of(container_of(h, struct vm_pager, handle));

	kmutex_lock(&table_lock);
	LIST_REMOVE(v, link);
	kmutex_unlock(&table_lock);
	for (int direct = 0; direct < 2; direct++) {
		if (v->ro[direct] >= 0)
			(void)sys_close(v->ro[direct]);
		if (v->rw[direct] >= 0)
			(void)sys_close(v->rw[direct]);
	}
	slab_free(&vnodes, v);
}

/* Open what fd is open on once more.  A descriptor, or -errno. */
static int
reopen(int fd, int flags)
{
	char path[] = "/proc/self/fd/0123456789";
	char *p = path + sizeof("/proc/self/fd/") - 1;
	uint32_t div = 1000000000, n = (uint32_t)fd;

	while (div > 1 && n / div == 0)
		div /= 10;
	for (; div > 0; div /= 10)
		*p++ = (char)('0' + n / div % 10);
	*p = '\0';
	return sys_open(path, flags);
}

/*
 * A descriptor of our own for what `fd', with these flags, is open on; or -errno. *alone: its
 * offset is, too.
 */
static int
own_fd(int fd, int flags, bool direct, bool *alone)
{
	int own;

	*alone = false;

	if (!direct && (flags & (O_ACCMODE | O_DIRECT | O_NONBLOCK)) == O_RDONLY)
		return sys_dup(fd);
	own = reopen(fd, (flags & O_ACCMODE) | (direct ? O_DIRECT : 0));
	*alone = own >= 0;
	if (own < 0 && !(flags & O_APPEND) && direct == !!(flags & O_DIRECT))
		own = sys_dup(fd);
	if (own < 0 && own != -EMFILE && own != -ENFILE && own != -ENOMEM)
		own = direct ? -EINVAL : -EACCES;
	return own;
}

static struct vnode *
make(uint64_t dev, uint64_t ino)
{
	struct vnode *v = slab_alloc(&vnodes);

	if (v == NULL)
		return NULL;
	v->pager.handle.refs = 1;
	v->pager.handle.type = HANDLE_PAGER;	/* never named: the object goes with its last mapping */
	v->pager.handle.destroy = destroy;
	v->pager.ops = &vnode_ops;
	v->pager.npages = NPAGES_MAX;
	v->dev = dev;
	v->ino = ino;
	v->ro[0] = v->ro[1] = v->rw[0] = v->rw[1] = v->seek = -1;
	LIST_INSERT_HEAD(&table, v, link);
	return v;
}

/*
 * The file's pager, referenced, new if need be; one that is being destroyed does not count.
 * => table locked
 */
static struct vnode *
find(uint64_t dev, uint64_t ino)
{
	struct vnode *v;

	LIST_FOREACH(v, &table, link)
		if (v->dev == dev && v->ino == ino && handle_ref_try(&v->pager.handle))
			return v;
	return make(dev, ino);
}

/* Descriptors for the page cache [0] and, if wanted, past it [1]. */
static int
own_fds(int fd, int flags, bool direct, int own[2], bool *alone)
{
	bool also;

	own[1] = -1;
	own[0] = own_fd(fd, flags, false, alone);
	if (own[0] < 0)
		return own[0];
	if (!direct)
		return 0;
	own[1] = own_fd(fd, flags, true, &also);
	if (own[1] >= 0)
		return 0;
	(void)sys_close(own[0]);
	return own[1];
}

int
vnode_open(int fd, bool writable, bool direct, struct vm_pager **pager, bool *may_write)
{
	struct sys_stat st;
	int flags = sys_get_flags(fd), own[2], error;
	struct vnode *v;
	bool alone;

	if (flags < 0 || (flags & O_PATH))
		return -EBADF;
	error = sys_stat(fd, &st);
	if (error != 0)
		return error;
	if (!S_ISREG(st.mode) || (flags & O_ACCMODE) == O_WRONLY ||
	    (writable && (flags & O_ACCMODE) != O_RDWR))
		return -EACCES;
	*may_write = (flags & O_ACCMODE) == O_RDWR;
	error = own_fds(fd, flags, direct || (flags & O_DIRECT), own, &alone);
	if (error != 0)
		return error;
	kmutex_lock(&table_lock);
	v = find(st.dev, st.ino);
	for (int i = 0; i < 2 && v != NULL; i++) {
		_Atomic int *slot = *may_write ? &v->rw[i] : &v->ro[i];

		if (*slot < 0 && v->rw[i] < 0) {
			*slot = own[i];
			if (i == 0 && *may_write && alone)
				v->seek = own[i];
			own[i] = -1;
		}
	}
	kmutex_unlock(&table_lock);
	for (int i = 0; i < 2; i++)
		if (own[i] >= 0)
			(void)sys_close(own[i]);
	if (v == NULL)
		return -ENOMEM;
	*pager = &v->pager;
	return 0;
}

void
vnode_init(void)
{
	kmutex_init(&table_lock, RANK_VNODE);
	LIST_INIT(&table);
	slab_init(&vnodes, "vnode", sizeof(struct vnode), 8);
	slab_init(&transfers, "vnode transfer", sizeof(struct transfer), 8);
}

void
vnode_fini(void)
{
	struct vnode *v;

	while ((v = LIST_FIRST(&table)) != NULL) {
		/* Only an object with pages that could not be written keeps it. */
		handle_ref(&v->pager.handle);
		vm_object_uncache(&v->pager);
		handle_put(&v->pager.handle);
	}
	slab_fini(&vnodes);
	slab_fini(&transfers);
}
