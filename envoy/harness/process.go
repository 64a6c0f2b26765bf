package harness

import (
	"fmt"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"
)

// keptLog is how much of a process's output is kept, in bytes: its end.
const keptLog = 1 << 20

// process is a child process and the end of what it wrote.
type process struct {
	cmd  *exec.Cmd
	log  *tail
	done chan struct{} // closed when the process has ended and its output is read
	err  error         // how it ended; read it after done
}

func startProcess(log *tail, dir, name string, args ...string) (*process, error) {
	p := &process{cmd: exec.Command(name, args...), log: log, done: make(chan struct{})}
	p.cmd.Dir = dir
	p.cmd.Stdout, p.cmd.Stderr = log, log
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

// stop asks the process to end and waits; after patience it is killed, which is an error.
func (p *process) stop(patience time.Duration) error {
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may have ended already
	select {
	case <-p.done:
	case <-time.After(patience):
		p.kill()
		return fmt.Errorf("%s did not stop within %v", p.cmd.Path, patience)
	}
	return p.err
}

// kill ends the process with SIGKILL: it gets no chance to tidy up.
func (p *process) kill() {
	_ = p.cmd.Process.Signal(os.Kill)
	<-p.done
}

// tail is a writer that keeps the end of what was written to it. It may be used concurrently.
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
