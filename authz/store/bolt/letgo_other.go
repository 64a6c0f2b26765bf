//go:build !(linux || darwin || freebsd || netbsd || openbsd)

package bolt

import "os"

// letGo closes a file that bbolt died on.
func letGo(f *os.File) {
	if f != nil {
		_ = f.Close()
	}
}
