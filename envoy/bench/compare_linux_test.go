package main

import (
	"context"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc"
)

// ownProcess is an authorizer in this process.
type ownProcess struct {
	name   string
	log    *[]string // of its starts
	answer *authv3.CheckResponse
	server *grpc.Server
}

func (p *ownProcess) start(context.Context) (port, pid int, err error) {
	*p.log = append(*p.log, p.name)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, 0, err
	}
	p.server = grpc.NewServer()
	authv3.RegisterAuthorizationServer(p.server, noop{p.answer})
	go func() { _ = p.server.Serve(l) }()
	return l.Addr().(*net.TCPAddr).Port, os.Getpid(), nil
}

func (p *ownProcess) stop() error {
	p.server.Stop()
	return nil
}

func (p *ownProcess) close() error { return nil }

// TestCompare_TakesTurns measures three rivals in two processes, which begin in another order in each round.
func TestCompare_TakesTurns(t *testing.T) {
	people := crowd(50)
	tokens, err := mintTokens(people, 5)
	if err != nil {
		t.Fatal(err)
	}
	of := loads(people, tokens)
	var starts []string
	rivalOf := func(name string, l load) *rival { return &rival{name: name, load: l.judgedBy(allAllow)} }
	sessions := []*session{
		{authorizer: &ownProcess{name: "a", log: &starts, answer: allow()}, rivals: []*rival{rivalOf("a-street", of["street"]), rivalOf("a-path", of["path"])}},
		{authorizer: &ownProcess{name: "b", log: &starts, answer: allow()}, rivals: []*rival{rivalOf("b-alike", of["alike"])}},
	}
	s := span{warmUp: time.Millisecond, measured: 30 * time.Millisecond}
	got, err := compare(t.Context(), sessions, 2, s)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, r := range got.rivals {
		names = append(names, r.rival.name)
		if len(r.rounds) != 2 {
			t.Fatalf("%s has %d rounds, want 2", r.rival.name, len(r.rounds))
		}
		for _, one := range r.rounds {
			if one.calls == 0 || one.denied > 0 || one.cpu <= 0 || one.memory <= 0 || one.written < 0 {
				t.Errorf("%s: %+v", r.rival.name, one)
			}
		}
	}
	if strings.Join(names, " ") != "a-street a-path b-alike" || !slices.Equal(starts, []string{"a", "b", "b", "a"}) {
		t.Errorf("rivals %v, starts %v", names, starts)
	}
	sessions[1].authorizer.(*ownProcess).answer = deny("key_unknown")
	if _, err := compare(t.Context(), sessions, 1, s); err == nil || !strings.Contains(err.Error(), "b-alike") {
		t.Errorf("a rival that denies all: %v", err)
	}
}
