//go:build linux || darwin || freebsd || netbsd || openbsd

package bolt

import (
	"os"
	"syscall"
)

// releaseFile closes a file on which bbolt panicked. It unlocks the file first: the memory map that bbolt left would keep the lock.
func releaseFile(f *os.File) {
	if f != nil {
		_ = syscall.Flock(int(f.Fd()), syscall.LOCK_UN)
		_ = f.Close()
	}
}
