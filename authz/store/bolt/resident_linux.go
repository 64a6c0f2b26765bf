package bolt

import (
	"go.etcd.io/bbolt"
	"golang.org/x/sys/unix"
)

// dropPages gives back the memory that pages of the file take up in this process, after something that walked through much of
// it. They stay in the system's cache, from where the next access to one gets it back.
func dropPages(tx *bbolt.Tx) {
	// The transaction keeps bbolt from mapping the file anew meanwhile. It is advice: there is nothing to do about an error.
	_, _, _ = unix.Syscall(unix.SYS_MADVISE, tx.DB().Info().Data, uintptr(tx.Size()), unix.MADV_DONTNEED)
}
