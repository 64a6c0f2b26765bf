package bolt

import (
	"go.etcd.io/bbolt"
	"golang.org/x/sys/unix"
)

// dropPages gives back the memory that the file's pages take in this process, after a walk through much of it. The system's
// cache keeps them, so that the next access to one costs no I/O.
func dropPages(tx *bbolt.Tx) {
	// The transaction keeps bbolt from remapping the file meanwhile. The call is only advice, so an error does not matter.
	_, _, _ = unix.Syscall(unix.SYS_MADVISE, tx.DB().Info().Data, uintptr(tx.Size()), unix.MADV_DONTNEED)
}
