package check_test

import (
	"context"
	"fmt"
	"maps"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/check"
)

// streamed is a request of stream n, as the proxy asks about it.
func streamed(n int, key string) *authz.Request {
	r := request("x-api-key", key)
	r.HTTP.ID = fmt.Sprint(n)
	r.Time = time.Unix(1700000000, 0)
	r.Source = &authz.Peer{Address: &authz.Address{Socket: &authz.SocketAddress{Address: "198.51.100.7", Port: 50123}}}
	return r
}

func TestChargeDedup_TheSameStreamTwiceIsOneCharge(t *testing.T) {
	w := newWorld(t, rule(goodKey), check.Options{})
	for range 10 {
		if d := w.Check(t.Context(), streamed(1, w.text)); !d.Allowed() {
			t.Fatalf("denied: %s", d.DeniedFor())
		}
	}
	if n := w.spent(t); n != 1 {
		t.Errorf("one stream was charged %d", n)
	}
	other := []func(r *authz.Request){
		func(r *authz.Request) { r.HTTP.ID = "2" },
		func(r *authz.Request) { r.Source.Address.Socket.Port++ },
	}
	for i, change := range other {
		r := streamed(1, w.text)
		change(r)
		w.Check(t.Context(), r)
		if n := w.spent(t); n != int64(i+2) {
			t.Errorf("another stream %d: %d charged in all", i, n)
		}
	}
	for range 3 { // without a stream number, every check is charged
		r := streamed(1, w.text)
		r.HTTP.ID = ""
		w.Check(t.Context(), r)
	}
	if n := w.spent(t); n != 3 {
		t.Errorf("%d of 3 units charged", n)
	}
}

// TestEntry_NamesTheReservation of each charge once, so that whoever adds up a log counts no charge twice.
func TestEntry_NamesTheReservation(t *testing.T) {
	w := newWorld(t, rule(goodKey), check.Options{})
	for _, r := range []*authz.Request{
		streamed(1, w.text), streamed(1, w.text), request("x-api-key", w.text), request("x-api-key", w.text), // three charges, which is all
		request("x-api-key", w.text), request(),
	} {
		w.Check(t.Context(), r)
	}
	names := make(map[string]int)
	for _, e := range w.book.entries {
		if (e.Charge != nil) != (e.Reservation != "") {
			t.Errorf("a charge of %v has the reservation %q", e.Charge, e.Reservation)
		}
		names[e.Reservation]++
	}
	want := map[string]int{"": 2, "test.1": 2, "test.2": 1, "test.3": 1}
	if !maps.Equal(names, want) {
		t.Errorf("the reservations of two checks of a stream, of two without one and of two denials: %v, want %v", names, want)
	}
}

func TestChargeDedup_TheSameStreamAtOnceIsOneCharge(t *testing.T) {
	w := newWorld(t, rule(goodKey), check.Options{Timeout: 10 * time.Second})
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			if d := w.Check(t.Context(), streamed(1, w.text)); !d.Allowed() {
				t.Errorf("denied: %s", d.DeniedFor())
			}
		})
	}
	wg.Wait()
	if n := w.spent(t); n != 1 {
		t.Errorf("one stream was charged %d", n)
	}
}

// TestChargeDedup_ARetryKeepsTheChargeOfACheckThatGaveUp uses a first check whose caller goes away and a second one that is
// answered.
func TestChargeDedup_ARetryKeepsTheChargeOfACheckThatGaveUp(t *testing.T) {
	for _, order := range []string{"before", "during"} {
		t.Run(order, func(t *testing.T) {
			w := newWorld(t, nil, check.Options{Timeout: 10 * time.Second})
			var calls atomic.Int64
			release, inside := make(chan struct{}), make(chan struct{})
			w.Use(&check.Rules{Plans: map[string][]authz.Limit{"small": limits}, Policy: rule(func(context.Context, *authz.Request, *authz.Facts) (authz.Verdict, error) {
				if calls.Add(1) == 1 && order == "during" {
					close(inside)
					<-release
				}
				return authz.Verdict{Allowed: true}, nil
			})})
			ctx, cancel := context.WithCancel(t.Context())
			first := make(chan authz.Decision)
			go func() { first <- w.Check(ctx, streamed(1, w.text)) }()
			if order == "during" {
				<-inside
			} else {
				<-first
			}
			cancel()
			d := w.Check(t.Context(), streamed(1, w.text))
			if order == "during" {
				close(release)
				<-first
			}
			if !d.Allowed() || w.spent(t) != 1 {
				t.Errorf("allowed %v, charged %d", d.Allowed(), w.spent(t))
			}
		})
	}
}

func TestChargeDedup_ADenialAfterALostAllowCostsNothing(t *testing.T) {
	w := newWorld(t, rule(goodKey), check.Options{})
	w.Check(t.Context(), streamed(1, w.text))
	if n := w.spent(t); n != 1 {
		t.Fatalf("charged %d", n)
	}
	w.Use(&check.Rules{Policy: always(authz.Verdict{}), Plans: map[string][]authz.Limit{"small": limits}})
	if d := w.Check(t.Context(), streamed(1, w.text)); d.Allowed() {
		t.Fatal("allowed")
	}
	if err := w.meter.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	if n := w.spent(t); n != 0 {
		t.Errorf("the stream was denied in the end and charged %d", n)
	}
}
