package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
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

// rival is an authorizer with its load.
type rival struct {
	authorizer
	name  string // on the command line
	label string // in the tables
	load  load
}

const (
	// baseline is the rival to which the others are compared.
	baseline = "noop"
	// sameAnswer is the baseline with Tollkeeper's answer. It shows what Envoy's work on the answer costs.
	sameAnswer = "noop-answer"
)

// ownServer is this program, started again as an authorizer.
type ownServer struct {
	kind  string
	cmd   *exec.Cmd // nil while it does not run
	stdin io.Closer // closing it ends the process
}

var _ authorizer = (*ownServer)(nil)

func (s *ownServer) start(ctx context.Context) (port, pid int, err error) {
	path, err := os.Executable()
	if err != nil {
		return 0, 0, err
	}
	cmd := exec.CommandContext(ctx, path, "-serve", s.kind)
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

// plan is the keys' plan. Its limits are charged as usual, and never reached.
const plan = "bench"

const plansYAML = `tollkeeper:
  plans:
    ` + plan + `:
      limits:
        rate: {units: 1000000000, window: minute}
        daily: {units: 1000000000000, window: day, per: account}
`

// settings are more settings of Tollkeeper, none of which makes it faster.
const settings = `policy: {paths: [%q]%s}
log: {decisions: %q}
`

// newTollkeeper makes a Tollkeeper with keys and revocations, and does not start it. Its files are in dir, or in folders
// that close removes.
func newTollkeeper(ctx context.Context, binary, dir string, w *dataset, keys keySet) (_ *tollkeeper, err error) {
	policies := filepath.Join(dir, w.name+"-policies")
	if out, err := exec.CommandContext(ctx, binary, "policy", "init", policies).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("policy init: %w: %s", err, out)
	}
	files := map[string]string{"plans.yaml": plansYAML, "routes.yaml": routesYAML}
	if w.rules != "" {
		files["custom.rego"] = w.rules
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(policies, name), []byte(text), 0o600); err != nil {
			return nil, err
		}
	}
	t := &tollkeeper{decisions: filepath.Join(dir, w.name+"-decisions.jsonl")}
	t.Tollkeeper, err = harness.StartTollkeeper(ctx, harness.TollkeeperOptions{
		Binary: binary, Extra: fmt.Sprintf(settings, policies, w.policy, t.decisions),
	})
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, t.close())
		}
	}()
	file := filepath.Join(dir, w.name+"-keys.jsonl")
	if err := keys.writeFile(file, plan); err != nil {
		return nil, err
	}
	if _, err := t.CLI(ctx, "key", "import", file); err != nil {
		return nil, err
	}
	if err := errors.Join(os.Remove(file), t.stop()); err != nil {
		return nil, err
	}
	return t, revoke(ctx, filepath.Join(t.DataDir(), "tollkeeper.db"), w.revoked)
}

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
	text, err := t.Metrics(ctx)
	if err != nil {
		return memo{}, err
	}
	var m memo
	for line := range strings.Lines(text) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		if !strings.HasPrefix(name, memoMetric+"{") {
			continue
		}
		n, err := strconv.ParseFloat(value, 64)
		if err != nil {
			return memo{}, fmt.Errorf("%s: %w", line, err)
		}
		if strings.Contains(name, `"hit"`) {
			m.hits += n
		} else {
			m.others += n
		}
	}
	return m, nil
}

func (t *tollkeeper) stop() error {
	err := t.Stop()
	if gone := os.Remove(t.decisions); err == nil && !errors.Is(gone, os.ErrNotExist) {
		err = gone // otherwise the turns would fill the disk
	}
	return err
}

func (t *tollkeeper) close() error { return errors.Join(t.stop(), t.Close()) }
