package harness

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// keptLog is how many bytes of a process's output are kept, counted from its end.
const keptLog = 1 << 20

// Process is a child process and the end of its output. Its methods may be used concurrently.
type Process struct {
	cmd  *exec.Cmd
	log  *tail
	done chan struct{} // closed when the process has ended and its output is read
	err  error         // how it ended; read it after done
}

// StartProcess starts a command, whose output it takes. The caller stops or kills the process.
func StartProcess(cmd *exec.Cmd) (*Process, error) { return startProcess(new(tail), cmd) }

// startProcess lets several runs write to one log.
func startProcess(log *tail, cmd *exec.Cmd) (*Process, error) {
	p := &Process{cmd: cmd, log: log, done: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		p.err = cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

// Log returns the end of what the process has written.
func (p *Process) Log() string { return p.log.String() }

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Err returns how the process ended: nil for exit status 0. It waits for the end.
func (p *Process) Err() error {
	<-p.done
	return p.err
}

// Stop asks the process to end and waits. After patience it kills the process and returns an error.
func (p *Process) Stop(patience time.Duration) error {
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may have ended already
	select {
	case <-p.done:
	case <-time.After(patience):
		p.Kill()
		return fmt.Errorf("%s did not stop within %v", p.cmd.Path, patience)
	}
	return p.err
}

// Kill ends the process with SIGKILL, so that it cannot tidy up.
func (p *Process) Kill() {
	_ = p.cmd.Process.Signal(os.Kill)
	<-p.done
}

// errPortTaken is returned when a process ended because another one listens on its port.
var errPortTaken = errors.New("another process took the port")

// Await calls try until it succeeds, the process ends, or ctx does.
func (p *Process) Await(ctx context.Context, try func() error) error {
	name := filepath.Base(p.cmd.Path)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := try()
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-p.done:
			if strings.Contains(strings.ToLower(p.Log()), "address already in use") {
				return errPortTaken
			}
			return fmt.Errorf("%s ended (%v) before it was ready (%w):\n%s", name, p.err, err, p.log)
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready (%w):\n%s", name, err, p.log)
		}
	}
}

// tail is a writer that keeps the end of what is written to it. It may be used concurrently.
type tail struct {
	mu   sync.Mutex
	buf  []byte
	lost bool
}

func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(t.buf, b...)
	if over := len(t.buf) - keptLog; over > keptLog { // cut rarely, not at every line
		t.buf = append([]byte(nil), t.buf[over:]...)
		t.lost = true
	}
	return len(b), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.lost {
		return "[...]" + string(t.buf)
	}
	return string(t.buf)
}
