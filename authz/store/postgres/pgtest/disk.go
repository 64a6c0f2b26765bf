package pgtest

import (
	"errors"
	"fmt"
	"strconv"
)

// Fill has every write to a file fail, as on a full disk, until empty is called. PostgreSQL ends when it cannot write its log, and
// Start starts it again.
func (s *Server) Fill() (empty func(), err error) {
	limit := func(pid int, soft string) error {
		out, err := s.system("prlimit", "--pid", strconv.Itoa(pid), "--fsize="+soft).CombinedOutput()
		if err != nil {
			return fmt.Errorf("prlimit: %w\n%s", err, out)
		}
		return nil
	}
	pid := s.cmd.Process.Pid
	if err := limit(pid, "0:"); err != nil {
		return nil, err
	}
	children, err := childrenOf(pid)
	for _, child := range children {
		if failed := limit(child, "0:"); failed != nil && alive(child) {
			err = errors.Join(err, failed)
		}
	}
	return func() {
		for _, p := range append(children, pid) {
			_ = limit(p, "unlimited:") // of those that live
		}
	}, err
}
