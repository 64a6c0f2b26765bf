package server

import (
	"context"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz/gcpace"
)

const (
	syncEvery    = time.Second      // reads new revocations
	pruneEvery   = time.Minute      // deletes expired revocations
	forgetEvery  = 10 * time.Minute // deletes the counts of past periods
	tlsPollEvery = time.Second      // looks for new certificates
)

// startLoops starts what runs beside the checks, until ctx ends.
func (s *Server) startLoops(ctx context.Context, wg *sync.WaitGroup) {
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP) // before anything is served: without a receiver the signal ends the process
	wg.Go(func() { s.heedHangups(ctx, hup) })
	wg.Go(func() { s.rules.Run(ctx) })
	wg.Go(func() { gcpace.Run(ctx) })
	if s.tls != nil {
		wg.Go(func() { every(ctx, tlsPollEvery, s.tls.Poll) })
	}
	wg.Go(func() { s.dispenser.Run(ctx) })
	wg.Go(func() { s.followRevocations(ctx) })
	wg.Go(func() {
		s.pruneRevocations(ctx)
		every(ctx, pruneEvery, func() { s.pruneRevocations(ctx) })
	})
	wg.Go(func() { every(ctx, forgetEvery, func() { s.forgetPeriods(ctx) }) })
}

// heedHangups reloads policies and reopens the decision log on SIGHUP.
func (s *Server) heedHangups(ctx context.Context, hup chan os.Signal) {
	defer signal.Stop(hup)
	for {
		select {
		case <-ctx.Done():
			return
		case <-hup:
			s.rules.Poke()
			s.decisions.Reopen()
		}
	}
}

// follower is a store that other nodes write to as well, and that says when they may have.
type follower interface {
	Follow() (wake <-chan struct{}, stop func())
}

// followRevocations reads new revocations at intervals, which shows that the store can be reached, and when the store says that
// there may be some.
func (s *Server) followRevocations(ctx context.Context) {
	var wake <-chan struct{}
	if f, ok := s.stores.revocations.(follower); ok {
		w, stop := f.Follow()
		defer stop()
		wake = w
	}
	failing := false
	everyOrWoken(ctx, syncEvery, wake, func() {
		err := s.revocations.Sync(ctx)
		switch {
		case ctx.Err() != nil:
		case err != nil && !failing:
			s.log.Error("revocations not read", "error", err, "age", s.revocations.Age())
		case err == nil && failing:
			s.log.Info("revocations are read again")
		}
		failing = err != nil
	})
}

func (s *Server) pruneRevocations(ctx context.Context) {
	if err := s.pruner.Prune(ctx); err != nil && ctx.Err() == nil {
		s.log.Error("expired revocations not deleted", "error", err)
	}
}

func (s *Server) forgetPeriods(ctx context.Context) {
	if _, err := s.stores.ledger.Forget(ctx); err != nil && ctx.Err() == nil {
		s.log.Error("counts of past periods not deleted", "error", err)
	}
}

// every calls f at intervals until ctx ends.
func every(ctx context.Context, interval time.Duration, f func()) {
	everyOrWoken(ctx, interval, nil, f)
}

// everyOrWoken calls f at intervals, and when something arrives on wake, until ctx ends.
func everyOrWoken(ctx context.Context, interval time.Duration, wake <-chan struct{}, f func()) {
	t := time.NewTicker(interval)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		case <-wake:
		}
		f()
	}
}
