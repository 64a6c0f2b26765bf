package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/protobuf/proto"

	"github.com/tollkeeper-authz/tollkeeper/envoy/harness"
)

// lane is a way of a request: through an Envoy, to an authorizer that gives one answer.
type lane struct {
	label      string
	size       int // bytes of the answer
	proxy      *harness.Proxy
	authorizer int // process id, 0 for none
	clients    []*client
	rounds     []*passage
}

// passage is one measurement of a lane.
type passage struct {
	*measurement
	envoy, authorizer time.Duration // processor time
}

func (p *passage) median() float64        { return float64(p.latency.quantile(.5)) }
func (p *passage) envoyPer() float64      { return float64(p.envoy) / float64(max(1, p.calls)) }
func (p *passage) authorizerPer() float64 { return float64(p.authorizer) / float64(max(1, p.calls)) }
func (p *passage) cpuPer() float64        { return p.envoyPer() + p.authorizerPer() }
func addedBy(one, bare []*passage, of func(*passage) float64) []float64 {
	out := make([]float64, len(one))
	for i := range one {
		out[i] = of(one[i]) - of(bare[i])
	}
	return out
}

// lanes are measured in turns, each for a moment, because the load of the machine changes from second to second. All processes run
// all the time. A lane does not wait for the writes of another: none writes much.
type lanes struct {
	envoyRun
	all     []*lane
	closers []func() error
}

func (l *lanes) close() (err error) {
	for i := len(l.closers) - 1; i >= 0; i-- {
		err = errors.Join(err, l.closers[i]())
	}
	return err
}

// start starts an authorizer, and an Envoy that asks it.
func (l *lanes) start(ctx context.Context, a authorizer) (p *harness.Proxy, port, pid int, err error) {
	l.closers = append(l.closers, a.close)
	if port, pid, err = a.start(ctx); err != nil {
		return nil, 0, 0, err
	}
	p, err = l.proxy(ctx, l.config, port)
	return p, port, pid, err
}

func (l *lanes) proxy(ctx context.Context, config []byte, authorizer int) (*harness.Proxy, error) {
	p, err := harness.StartProxy(ctx, harness.ProxyOptions{Binary: l.envoy, Config: config, Tollkeeper: authorizer, Upstream: l.upstream})
	if err == nil {
		l.closers = append(l.closers, p.Stop)
	}
	return p, err
}

// add makes a lane for requests of the nth answer.
func (l *lanes) add(label string, p *harness.Proxy, n, pid int, answer *authv3.CheckResponse) error {
	one := &lane{label: label, proxy: p, authorizer: pid, size: proto.Size(answer)}
	for i := range clients {
		a, err := l.load.asker(seed{0, uint64(i)})
		if err != nil {
			return err
		}
		c, err := newClient(p.Addr(), numberedPath(n), a)
		if err != nil {
			return err
		}
		l.closers = append(l.closers, c.conn.Close)
		one.clients = append(one.clients, c)
	}
	l.all = append(l.all, one)
	return nil
}

// measure sends requests along a lane for a span.
func (one *lane) measure(ctx context.Context, s span) (*passage, error) {
	calls := make([]call, len(one.clients))
	for i, c := range one.clients {
		if err := c.conn.SetDeadline(time.Now().Add(s.warmUp + s.measured + patience)); err != nil {
			return nil, err
		}
		calls[i] = func(context.Context, time.Time) error { return c.get() }
	}
	var envoy, authorizer []time.Duration
	m, err := drive(ctx, s, calls, func() error {
		e, err := cpuTime(one.proxy.PID())
		if err != nil {
			return err
		}
		var a time.Duration
		if one.authorizer != 0 {
			if a, err = cpuTime(one.authorizer); err != nil {
				return err
			}
		}
		envoy, authorizer = append(envoy, e), append(authorizer, a)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", one.label, err)
	}
	return &passage{measurement: m, envoy: envoy[1] - envoy[0], authorizer: authorizer[1] - authorizer[0]}, nil
}

// patiently measures again if the machine stood still for so long that Envoy gave up.
func (one *lane) patiently(ctx context.Context, s span) (p *passage, err error) {
	var denied denial
	for range 5 {
		if p, err = one.measure(ctx, s); !errors.As(err, &denied) {
			break
		}
		progress("again: %v", err)
	}
	return p, err
}

// compareAnswers measures what each part of an answer costs through Envoy.
func compareAnswers(ctx context.Context, o options, dir string) (err error) {
	run, up, err := newEnvoyRun(ctx)
	if err != nil {
		return err
	}
	defer up.close()
	l := &lanes{envoyRun: run}
	defer func() { err = errors.Join(err, l.close()) }()
	if err := l.open(ctx, o.binary, dir); err != nil {
		return err
	}
	for _, one := range l.all { // the first check of a key costs more than later ones
		if _, err := one.measure(ctx, span{measured: time.Second}); err != nil {
			return err
		}
	}
	s := span{measured: time.Duration(o.seconds * float64(time.Second))}
	s.warmUp = s.measured / 4
	rnd := rand.New(rand.NewPCG(0, 0))
	for round := range o.rounds {
		for _, i := range rnd.Perm(len(l.all)) {
			p, err := l.all[i].patiently(ctx, s)
			if err != nil {
				return err
			}
			l.all[i].rounds = append(l.all[i].rounds, p)
		}
		progress("round %d of %d", round+1, o.rounds)
	}
	t := l.table()
	fmt.Printf("\nMedians of %d × %v s. %s\n\n", o.rounds, o.seconds, machine())
	err = t.text(os.Stdout)
	if o.markdown != "" {
		err = errors.Join(err, writeFile(o.markdown, t.markdown))
	}
	return err
}

// open makes all lanes.
func (l *lanes) open(ctx context.Context, binary, dir string) error {
	bare, err := withoutAuthorizer(l.config)
	if err != nil {
		return err
	}
	p, err := l.proxy(ctx, bare, 0)
	if err != nil {
		return err
	}
	if err := l.add(noAuthorizer, p, 0, 0, nil); err != nil {
		return err
	}
	whole, err := l.addOurs(ctx, binary, dir)
	if err != nil {
		return err
	}
	return l.addParts(ctx, filepath.Join(dir, "answers"), partsOf(whole))
}

// addOurs makes a lane for each of a few settings of Tollkeeper. It returns the answer of the last, which has all that there is.
func (l *lanes) addOurs(ctx context.Context, binary, dir string) (whole *authv3.CheckResponse, err error) {
	if binary, err = filepath.Abs(binary); err != nil {
		return nil, err
	}
	for i, one := range []struct{ label, more string }{
		{"Tollkeeper without identity and metadata", "answers: {identity: [], metadata: []}\n"},
		{"Tollkeeper with its defaults", ""},
		{"Tollkeeper with all metadata", "answers: {metadata: [decision_id, reason, key_id, account, plan, route, issuer, token_id, subject, rid]}\n"},
	} {
		t, err := newTollkeeper(ctx, binary, dir, &dataset{name: fmt.Sprintf("answers-%d", i), people: l.load.people, more: one.more})
		if err != nil {
			return nil, err
		}
		p, port, pid, err := l.start(ctx, t)
		if err != nil {
			return nil, err
		}
		if whole, err = askOnce(ctx, port, &l.load); err != nil {
			return nil, err
		}
		if err := l.add(one.label, p, 0, pid, whole); err != nil {
			return nil, err
		}
	}
	return whole, nil
}

// addParts makes a lane for each part of an answer, and two over connections with Tollkeeper's windows: for the first and the last
// of them.
func (l *lanes) addParts(ctx context.Context, file string, parts []part) error {
	if err := writeAnswers(file, parts); err != nil {
		return err
	}
	for _, kind := range []string{givenAnswers, givenAnswersWindows} {
		p, _, pid, err := l.start(ctx, &ownServer{kind: kind, data: file})
		if err != nil {
			return err
		}
		for i, one := range parts {
			label := one.label
			if kind == givenAnswersWindows {
				if i > 0 && i < len(parts)-1 {
					continue
				}
				label += ", with Tollkeeper's HTTP/2 windows"
			}
			if err := l.add(label, p, i, pid, one.answer); err != nil {
				return err
			}
		}
	}
	return nil
}

// The lanes, or the setups, to which the others are compared.
const (
	noAuthorizer = "no authorizer"
	emptyAnswer  = "nothing (noop)"
)

// table compares each lane with the one for an answer with nothing in it, round by round.
func (l *lanes) table() table {
	t := table{
		title:  fmt.Sprintf("Requests through Envoy, %d at a time, by what the answer has in it", clients),
		header: []string{"answer", "bytes", "requests/s", "p50", "added p50 to nothing", "CPU of Envoy", "more than for nothing", "CPU of the authorizer", "added CPU to nothing"},
	}
	var bare, nothing []*passage
	for _, one := range l.all {
		switch one.label {
		case noAuthorizer:
			bare = one.rounds
		case emptyAnswer:
			nothing = one.rounds
		}
	}
	for _, one := range l.all {
		row := []string{
			one.label, fmt.Sprint(one.size), count(median(one.rounds, func(p *passage) float64 { return p.perSecond() })),
			millis(time.Duration(median(one.rounds, (*passage).median))), "-", micros(median(one.rounds, (*passage).envoyPer)), "-", "-", "-",
		}
		if one.label != noAuthorizer {
			against := func(of func(*passage) float64) string {
				return times(ratio(addedBy(one.rounds, bare, of), addedBy(nothing, bare, of), identity))
			}
			row[4], row[8] = against((*passage).median), against((*passage).cpuPer)
			more := addedBy(one.rounds, nothing, (*passage).envoyPer)
			row[6] = fmt.Sprintf("%.1f ± %.1f µs", medianOf(more)/1e3, standardError(more)/1e3)
			row[7] = micros(median(one.rounds, (*passage).authorizerPer))
		}
		t.rows = append(t.rows, row)
	}
	return t
}
