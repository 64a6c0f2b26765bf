package pgtest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

// Roles of each server, which log in with Password.
const (
	Superuser = "postgres"
	Owner     = "tollkeeper" // owns the databases of New, and is no superuser
	Password  = "pgtest"
)

// readyWait is how long a server may take to start or to stop.
const readyWait = time.Minute

// Options are the arguments of Start.
type Options struct {
	// Fast turns fsync and what depends on it off: a server that is killed keeps what it acknowledged, a machine that crashes does not.
	Fast bool
	// Settings are lines of postgresql.conf, such as "max_connections = 20".
	Settings []string
}

// Server is a running PostgreSQL. Use Start or Shared. Its methods may be called concurrently, except for those that
// start and end it.
type Server struct {
	bin, dir string
	port     int
	as       *syscall.Credential // nil: the user of this process
	cmd      *exec.Cmd
	ended    chan struct{} // closed when cmd has ended
	watcher  *os.File      // its end stops the watcher
}

// Start makes and starts a server. The caller calls Close.
func Start(o Options) (*Server, error) {
	bin, err := Find()
	if err != nil {
		return nil, err
	}
	s := &Server{bin: bin}
	if err := s.makeDir(); err != nil {
		return nil, err
	}
	if err := errors.Join(s.borrow(), s.init(o)); err != nil {
		_ = os.RemoveAll(s.dir)
		return nil, err
	}
	if err := s.run(); err != nil {
		return nil, err
	}
	sql := fmt.Sprintf("CREATE ROLE %s LOGIN PASSWORD '%s'", Owner, Password)
	if err := s.Exec(context.Background(), "postgres", sql); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// run starts a server whose files are there. If it fails, it removes them.
func (s *Server) run() error {
	if err := s.watch(); err != nil {
		return errors.Join(err, os.RemoveAll(s.dir))
	}
	if err := s.Start(); err != nil {
		return errors.Join(err, s.Close())
	}
	return nil
}

// makeDir makes the directory, which has to belong to the user that PostgreSQL runs as.
func (s *Server) makeDir() error {
	parent := os.TempDir()
	if len(parent) > 60 { // the path of a socket has at most 107 bytes
		parent = "/tmp"
	}
	var err error
	if s.dir, err = os.MkdirTemp(parent, "pgtest-"); err != nil || os.Getuid() != 0 {
		return err
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err1 := strconv.ParseUint(u.Uid, 10, 32)
		gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
		if err := errors.Join(err1, err2); err != nil {
			return err
		}
		s.as = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
		return os.Chown(s.dir, int(uid), int(gid))
	}
	return errors.New("PostgreSQL does not run as root, and there is no user postgres or nobody")
}

func (s *Server) data() string { return filepath.Join(s.dir, "data") }

// command is a program of PostgreSQL, run as its user in a process group of its own, so that a Ctrl-C does not reach it.
func (s *Server) command(name string, args ...string) *exec.Cmd {
	return s.system(filepath.Join(s.bin, name), args...)
}

// system is any program, run like those.
func (s *Server) system(path string, args ...string) *exec.Cmd {
	cmd := exec.Command(path, args...)
	cmd.Dir = s.dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C", "TZ=UTC", "HOME=" + s.dir}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: s.as, Setpgid: true}
	return cmd
}

// init makes the files of a cluster.
func (s *Server) init(o Options) error {
	password := filepath.Join(s.dir, "password")
	if err := os.WriteFile(password, []byte(Password+"\n"), 0o644); err != nil {
		return err
	}
	initdb := s.command("initdb", "--no-sync", "--no-instructions", "--encoding=UTF8", "--locale=C", "--username="+Superuser,
		"--auth-local=trust", "--auth-host=scram-sha-256", "--pwfile="+password, "--pgdata="+s.data())
	if out, err := initdb.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w\n%s", err, out)
	}
	conf, err := os.OpenFile(filepath.Join(s.data(), "postgresql.conf"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	settings := append([]string{
		"listen_addresses = '127.0.0.1'", "shared_buffers = 32MB", "max_connections = 100", "max_wal_size = 256MB",
	}, o.Settings...)
	if o.Fast {
		settings = append(settings, "fsync = off", "full_page_writes = off")
	}
	for _, line := range settings {
		_, _ = fmt.Fprintln(conf, line) // Close reports a full disk
	}
	return conf.Close()
}

// watch starts a shell that waits until this process has ended or Close was called, and then stops the server and removes the directory.
func (s *Server) watch() error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer func() { _ = r.Close() }()
	cmd := exec.Command("/bin/sh", "-c", `read _; pid=$(head -n 1 "$0/data/postmaster.pid" 2>/dev/null) && kill -CONT "$pid" && kill -QUIT "$pid"
		while [ -n "$pid" ] && kill -0 "$pid" 2>/dev/null; do sleep 0.05; done; rm -rf "$0"`, s.dir)
	cmd.Stdin = r
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		_ = w.Close()
		return err
	}
	go func() { _ = cmd.Wait() }()
	s.watcher = w
	return nil
}

// Start starts the server, at first or after Stop or Kill, on the same port, and waits until it answers.
func (s *Server) Start() error {
	for range 5 {
		if err := s.choosePort(); err != nil {
			return err
		}
		log, err := os.OpenFile(filepath.Join(s.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
		if err != nil {
			return err
		}
		s.cmd, s.ended = s.command("postgres", "-D", s.data(), "-k", s.dir, "-p", strconv.Itoa(s.port)), make(chan struct{})
		s.cmd.Stdout, s.cmd.Stderr = log, log
		err = s.cmd.Start()
		_ = log.Close()
		if err != nil {
			return err
		}
		go func(cmd *exec.Cmd, ended chan struct{}) {
			_ = cmd.Wait()
			close(ended)
		}(s.cmd, s.ended)
		if err = s.ready(); err == nil {
			return nil
		}
		if !errors.Is(err, errEnded) {
			return err
		}
		// Another process took the port.
	}
	return fmt.Errorf("PostgreSQL does not start:\n%s", s.Log())
}

// choosePort keeps the port that the server had.
func (s *Server) choosePort() error {
	if s.port != 0 {
		return nil
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	s.port = l.Addr().(*net.TCPAddr).Port
	return l.Close()
}

var errEnded = errors.New("the server ended")

// ready waits until the server answers.
func (s *Server) ready() error {
	deadline := time.After(readyWait)
	for {
		err := s.Exec(context.Background(), "postgres", "SELECT 1")
		if err == nil {
			return nil
		}
		select {
		case <-s.ended:
			return errEnded
		case <-deadline:
			return fmt.Errorf("PostgreSQL is not ready: %w\n%s", err, s.Log())
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// Exec runs statements as the superuser, over the socket.
func (s *Server) Exec(ctx context.Context, database, sql string) error {
	return Run(ctx, s.SocketURL(database), sql)
}

// Run runs statements, on a connection of its own.
func Run(ctx context.Context, url, sql string) error {
	ctx, cancel := context.WithTimeout(ctx, readyWait)
	defer cancel()
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(ctx) }()
	_, err = conn.Exec(ctx, sql)
	return err
}

// URL leads the owner of the databases to one of them, over TCP.
func (s *Server) URL(database string) string { return s.URLOf(Owner, database) }

// URLOf leads a role to a database, over TCP.
func (s *Server) URLOf(role, database string) string {
	return fmt.Sprintf("postgres://%s:%s@127.0.0.1:%d/%s?sslmode=disable", role, Password, s.port, database)
}

// SocketURL leads the superuser to a database, over the socket, without a password.
func (s *Server) SocketURL(database string) string {
	return fmt.Sprintf("postgres://%s@/%s?host=%s&port=%d", Superuser, database, s.dir, s.port)
}

// Address is where the server listens, for a proxy.
func (s *Server) Address() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(s.port)) }

// Dir is the directory of the server.
func (s *Server) Dir() string { return s.dir }

// Log returns what the server has logged.
func (s *Server) Log() string {
	text, _ := os.ReadFile(filepath.Join(s.dir, "log")) // for messages: nothing if there is none
	return string(text)
}

// Kill ends the server and all its processes with SIGKILL, as a machine that fails does.
func (s *Server) Kill() error {
	err := s.signal(syscall.SIGKILL)
	<-s.ended
	return err
}

// Stop shuts the server down in order. Its clients are disconnected.
func (s *Server) Stop() error {
	err := s.cmd.Process.Signal(syscall.SIGINT)
	select {
	case <-s.ended:
		return err
	case <-time.After(readyWait):
		return errors.Join(errors.New("PostgreSQL does not stop"), s.Kill())
	}
}

// Pause stops the server and all its processes with SIGSTOP: connections stay, and nothing answers. Resume lets them go on.
func (s *Server) Pause() error { return s.signal(syscall.SIGSTOP) }

// Resume ends Pause.
func (s *Server) Resume() error { return s.signal(syscall.SIGCONT) }

// Close ends the server and removes its directory.
func (s *Server) Close() error {
	if s.cmd != nil && s.cmd.Process != nil {
		_ = s.Resume() // a paused process does not end
		_ = s.cmd.Process.Signal(syscall.SIGQUIT)
		<-s.ended
	}
	return errors.Join(s.watcher.Close(), os.RemoveAll(s.dir))
}

// Restart starts the server again, whether it still runs or has ended by itself.
func (s *Server) Restart() error {
	select {
	case <-s.ended:
	default:
		if err := s.Stop(); err != nil {
			return err
		}
	}
	return s.Start()
}
