package pgtest_test

import (
	"context"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tollkeeper-authz/tollkeeper/authz/store/postgres/pgtest"
)

func TestServer_KilledPausedStopped(t *testing.T) {
	s, err := pgtest.Start(pgtest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	if err := s.CreateDatabase("d"); err != nil {
		t.Fatal(err)
	}
	if err := s.Exec(t.Context(), "d", "CREATE TABLE t (n int); INSERT INTO t VALUES (1)"); err != nil {
		t.Fatal(err)
	}
	old := connect(t, s.URL("d"))
	if err := s.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := old.Ping(t.Context()); err == nil {
		t.Error("a killed server answers")
	}
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	again := connect(t, s.SocketURL("d"))
	var n int
	if err := again.QueryRow(t.Context(), "SELECT n FROM t").Scan(&n); err != nil || n != 1 {
		t.Errorf("after the restart: %d, %v", n, err)
	}
	if err := s.Pause(); err != nil {
		t.Fatal(err)
	}
	short, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if conn, err := pgx.Connect(short, s.URL("d")); err == nil {
		_ = conn.Close(t.Context())
		t.Error("a paused server answers")
	}
	if err := s.Resume(); err != nil {
		t.Fatal(err)
	}
	if err := again.Ping(t.Context()); err != nil {
		t.Errorf("after the pause: %v", err)
	}
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	if err := again.Ping(t.Context()); err == nil {
		t.Error("a stopped server answers")
	}
}

// connect makes a connection that ends with the test.
func connect(t *testing.T, url string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

// TestServer_EndsWithTheBinary runs the test binary once more, which dies of SIGKILL with a server.
func TestServer_EndsWithTheBinary(t *testing.T) {
	if os.Getenv("PGTEST_DIE") != "" {
		s := pgtest.Shared(t)
		_, _ = os.Stdout.WriteString(s.Dir() + "\n")
		self, _ := os.FindProcess(os.Getpid())
		_ = self.Kill()
		select {}
	}
	cmd := exec.Command(os.Args[0], "-test.run", "^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), "PGTEST_DIE=1")
	out, err := cmd.Output()
	if err == nil || len(out) < 2 {
		t.Fatalf("%s, %v", out, err)
	}
	dir := string(out[:len(out)-1])
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if _, err := os.Stat(dir); os.IsNotExist(err) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s is still there", dir)
		}
	}
}

func TestServer_Standby(t *testing.T) {
	s, err := pgtest.Start(pgtest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	standby, err := s.Standby(s.URLOf(pgtest.Superuser, "postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = standby.Close() }()
	if err := s.Synchronous(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := s.Exec(t.Context(), "postgres", "CREATE TABLE t (n int)"); err != nil {
		t.Fatal(err)
	}
	if err := s.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := standby.Exec(t.Context(), "postgres", "INSERT INTO t VALUES (1)"); err == nil {
		t.Error("a standby takes writes")
	}
	if err := standby.Promote(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := standby.Exec(t.Context(), "postgres", "INSERT INTO t VALUES (1)"); err != nil {
		t.Errorf("after the promotion: %v", err)
	}
}
