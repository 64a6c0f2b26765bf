//go:build linux || darwin || freebsd || netbsd || openbsd

package bolt

import (
	"os"
	"syscall"
)

// releaseFile closes a file that bbolt died on. The lock is taken off by hand: bbolt's memory map would keep it.
func releaseFile(f *os.File) {
	if f != nil {
		_ = syscall.Flock(int(f.Fd()), syscall.LOCK_UN)
		_ = f.Close()
	}
}
