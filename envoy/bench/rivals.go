package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/envoy/harness"
)

// authorizer is a process that can be started and stopped any number of times, and is closed at the end.
type authorizer interface {
	// start returns when it is ready.
	start(ctx context.Context) (port, pid int, err error)
	// stop ends the process if it runs.
	stop() error
	// close stops it and removes its files.
	close() error
}

// rival is an authorizer with a load, a row of a table. Its session has the authorizer.
type rival struct {
	name  string // on the command line
	label string // in the tables
	kind  string // of our own servers, "" for Tollkeeper
	trial string // in which it takes part, "" if it is compared apart
	aged  bool   // all callers visit the server before it is measured
	load  load
}

const (
	// baseline is the rival to which the others are compared.
	baseline = "noop"
	// sameAnswer is the baseline with Tollkeeper's answer. It shows what Envoy's work on the answer costs.
	sameAnswer = "noop-answer"
	// givenAnswers gives answers by number, and givenAnswersWindows does so with Tollkeeper's windows of HTTP/2.
	givenAnswers        = "answers"
	givenAnswersWindows = "answers-windows"
)

// ownServer is this program, started again as an authorizer.
type ownServer struct {
	kind  string
	data  string    // the file with its data, "" if it needs none
	cmd   *exec.Cmd // nil while it does not run
	stdin io.Closer // closing it ends the process
}

var _ authorizer = (*ownServer)(nil)

func (s *ownServer) start(ctx context.Context) (port, pid int, err error) {
	path, err := os.Executable()
	if err != nil {
		return 0, 0, err
	}
	cmd := exec.CommandContext(ctx, path, "-serve", s.kind, "-data", s.data)
	cmd.Stderr = os.Stderr
	if s.stdin, err = cmd.StdinPipe(); err != nil {
		return 0, 0, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return 0, 0, err
	}
	if err := cmd.Start(); err != nil {
		return 0, 0, err
	}
	s.cmd = cmd
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err == nil {
		port, err = strconv.Atoi(strings.TrimSpace(line))
	}
	if err != nil {
		return 0, 0, errors.Join(fmt.Errorf("%s did not start: %w", s.kind, err), s.stop())
	}
	return port, cmd.Process.Pid, nil
}

func (s *ownServer) stop() error {
	if s.cmd == nil {
		return nil
	}
	cmd := s.cmd
	s.cmd = nil
	_ = s.stdin.Close()
	late := time.AfterFunc(patience, func() { _ = cmd.Process.Kill() })
	defer late.Stop()
	return cmd.Wait()
}

func (s *ownServer) close() error { return s.stop() }

// tollkeeper is the product, with its keys in the embedded store.
type tollkeeper struct {
	*harness.Tollkeeper
	decisions string // its decision log
}

var _ authorizer = (*tollkeeper)(nil)

func (t *tollkeeper) start(ctx context.Context) (port, pid int, err error) {
	if err := t.Start(ctx); err != nil {
		return 0, 0, err
	}
	return t.Port(), t.PID(), nil
}

// memo counts the decisions by whether their verdict was cached.
type memo struct{ hits, others float64 }

// share is the share of decisions whose verdict was cached, NaN if none were looked up.
func (m memo) share() float64 { return m.hits / (m.hits + m.others) }

const memoMetric = "tollkeeper_policy_memo_total"

// memo reads the metric of the cache of verdicts, which counts from the start of the process.
func (t *tollkeeper) memo(ctx context.Context) (memo, error) {
	var m memo
	err := t.metrics(ctx, func(name string, value float64) {
		switch {
		case !strings.HasPrefix(name, memoMetric+"{"):
		case strings.Contains(name, `"hit"`):
			m.hits += value
		default:
			m.others += value
		}
	})
	return m, err
}

// heap is what Go says of its heap.
type heap struct{ goal, percent, collections float64 }

// live is how many bytes the last collection found in use: the goal is that much and a percentage more.
func (h heap) live() int64 { return int64(h.goal / (1 + h.percent/100)) }

func (t *tollkeeper) heap(ctx context.Context) (heap, error) {
	var h heap
	err := t.metrics(ctx, func(name string, value float64) {
		switch name {
		case "go_memstats_next_gc_bytes":
			h.goal = value
		case "go_gc_gogc_percent":
			h.percent = value
		case "go_gc_duration_seconds_count":
			h.collections = value
		}
	})
	return h, err
}

// metrics calls each with every metric and its value.
func (t *tollkeeper) metrics(ctx context.Context, each func(name string, value float64)) error {
	text, err := t.Metrics(ctx)
	if err != nil {
		return err
	}
	for line := range strings.Lines(text) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		if strings.HasPrefix(name, "#") {
			continue
		}
		n, err := strconv.ParseFloat(value, 64)
		if err != nil {
			return fmt.Errorf("%s: %w", line, err)
		}
		each(name, n)
	}
	return nil
}

func (t *tollkeeper) stop() error {
	err := t.Stop()
	if gone := os.Remove(t.decisions); err == nil && !errors.Is(gone, os.ErrNotExist) {
		err = gone // otherwise the turns would fill the disk
	}
	return err
}

func (t *tollkeeper) close() error { return errors.Join(t.stop(), t.Close()) }
