package server

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz/config"
)

// listen opens the port whose address the field listen.NAME holds.
func listen(name, address string) (net.Listener, error) {
	open := listenTCP
	path, isSocket := strings.CutPrefix(address, config.UnixPrefix)
	if isSocket {
		address, open = path, listenUnix
	}
	l, err := open(address)
	if err != nil {
		return nil, fmt.Errorf("listen.%s: %w", name, err)
	}
	return l, nil
}

func listenTCP(address string) (net.Listener, error) {
	l, err := net.Listen("tcp", address)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("%s is in use by another process: stop that one or choose another port", address)
	}
	return l, err
}

// socketMode lets the owner and the group connect, which takes the right to write.
const socketMode = 0o660

// socket is a listener on a Unix socket.
type socket struct {
	net.Listener
	path string
	file os.FileInfo // of the socket file that we made
	once sync.Once
}

// listenUnix listens on a socket file. It replaces one that a process left behind. The file has its mode from the moment
// that it appears: it is made in a folder that only we can enter, and then moved.
func listenUnix(path string) (_ net.Listener, err error) {
	if err := checkVacant(path); err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(filepath.Dir(path), ".tk-")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	tmp := filepath.Join(dir, "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: tmp, Net: "unix"})
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false) // it has another name by then
	s := &socket{Listener: l, path: path}
	if err = os.Chmod(tmp, socketMode); err == nil {
		if err = os.Rename(tmp, path); err == nil {
			s.file, err = os.Lstat(path)
		}
	}
	if err != nil {
		_ = l.Close()
		return nil, err
	}
	return s, nil
}

// checkVacant returns an error if there is something at path that must not be replaced.
func checkVacant(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Mode()&os.ModeSocket == 0 {
		return fmt.Errorf("%s is there and is no socket: move it away or choose another path", path)
	}
	conn, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		_ = conn.Close()
		return fmt.Errorf("%s is in use by another process: stop that one or choose another path", path)
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return err
	}
	return nil
}

func (s *socket) Addr() net.Addr { return &net.UnixAddr{Name: s.path, Net: "unix"} }

// Close removes the file, too, unless a successor has put its own there.
func (s *socket) Close() error {
	s.once.Do(func() { // a second Close could remove a successor's file that got the same inode number
		if now, err := os.Lstat(s.path); err == nil && os.SameFile(now, s.file) {
			_ = os.Remove(s.path)
		}
	})
	return s.Listener.Close()
}
