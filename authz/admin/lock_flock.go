//go:build linux || darwin || freebsd || netbsd || openbsd

package admin

import (
	"os"
	"syscall"
)

// lock keeps a file locked until it is closed.
func lock(f *os.File) error { return syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) }

// locked reports whether another process has a file locked.
func locked(f *os.File) bool {
	err := syscall.Flock(int(f.Fd()), syscall.LOCK_SH|syscall.LOCK_NB)
	return err == syscall.EWOULDBLOCK
}
