package pgtest

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
)

// signal reaches the postmaster first, which makes no new processes then, and its children, each of which leads a process group of its own.
func (s *Server) signal(sig syscall.Signal) error {
	pid := s.cmd.Process.Pid
	children, err := childrenOf(pid)
	errs := []error{err, s.cmd.Process.Signal(sig)}
	if sig == syscall.SIGSTOP { // those that were made meanwhile
		children, err = childrenOf(pid)
		errs = append(errs, err)
	}
	for _, child := range children {
		if err := syscall.Kill(child, sig); !errors.Is(err, syscall.ESRCH) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// childrenOf reads /proc, which lists the children of each thread. Other systems than Linux have none: there a child notices that the
// postmaster died, and Pause reaches the postmaster alone.
func childrenOf(pid int) ([]int, error) {
	files, err := filepath.Glob(filepath.Join("/proc", strconv.Itoa(pid), "task", "*", "children"))
	if err != nil {
		return nil, err
	}
	var out []int
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		for _, field := range bytes.Fields(text) {
			child, err := strconv.Atoi(string(field))
			if err != nil {
				return nil, err
			}
			out = append(out, child)
		}
	}
	return out, nil
}

func alive(pid int) bool { return !errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) }
