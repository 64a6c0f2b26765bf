//go:build !(linux || darwin || freebsd || netbsd || openbsd)

package admin

import "os"

// Without locks, a file that exists counts as locked.

func lock(*os.File) error { return nil }

func locked(*os.File) bool { return true }
