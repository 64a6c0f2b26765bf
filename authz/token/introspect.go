package token

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/maypok86/otter/v2"
	"github.com/sony/gobreaker/v2"
	"golang.org/x/sync/singleflight"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/credential"
)

// Introspection says who is asked about tokens that only their server understands (RFC 7662).
type Introspection struct {
	URL string
	// Issuer is the name by which its tokens are revoked here, and the iss that an answer must have, if it has one.
	Issuer string
	// ClientID and Secret are who we are to it (RFC 6749 section 2.3.1).
	ClientID, Secret string
	// Audiences, if there are any, are those of which an answer must name one.
	Audiences []string
	// AudienceClaim, AccountClaim, PlanClaim and Accounts are those of an Issuer.
	AudienceClaim, AccountClaim, PlanClaim string
	Accounts                               []string
	// TTL is how long "active" is believed, though never past the token's end, and NegativeTTL how long "not active" is.
	TTL, NegativeTTL time.Duration
	Timeout          time.Duration // of one call; a check may wait for less
	// MaxRefusals is about how many tokens that are not good the server is asked for one peer in a minute. 0: any number.
	MaxRefusals int
}

// Check returns an error that says what of the configuration cannot be honoured.
func (i *Introspection) Check() error {
	if i.Issuer == "" {
		return authz.Errorf(authz.KindInvalid, "introspection needs the issuer whose tokens it is about")
	}
	if i.ClientID == "" || i.Secret == "" {
		return authz.Errorf(authz.KindInvalid, "introspection needs a client id and its secret: a server tells strangers nothing")
	}
	if err := checkAccounts(i.Accounts, i.AccountClaim); err != nil {
		return err
	}
	return CheckURL(i.URL)
}

const (
	// maxAsking bounds how many calls are under way, and so how much a flood of made-up tokens can cost anybody. Tokens that
	// were good before have as many of their own.
	maxAsking = 64
	// maxOpaque is the longest opaque token.
	maxOpaque = 4096
	// After tripAfter failures in a row the server is not asked for breakFor.
	tripAfter = 5
	breakFor  = 2 * time.Second
	// maxKnown is how many tokens are remembered to have been good, and maxRefused how many not to be.
	maxKnown, maxRefused = cacheSize, 10_000
)

// introspector asks the server that made a token. One call is made for all who wait for the same token; after several
// failures of the server none is made for a while, and the answer is "unavailable" at once.
//
// Whoever makes tokens up must not take the server away from those who have good ones: what a server says of a token is no
// failure of the server, known tokens wait for no others, and each peer has so many refusals.
type introspector struct {
	Introspection
	client   *http.Client
	log      *slog.Logger
	now      func() time.Time
	spawn    func(func(context.Context))
	mayBeKey func(ctx context.Context, text string) (bool, error)
	flights  singleflight.Group
	breaker  *gobreaker.CircuitBreaker[map[string]any]
	room     [2]chan struct{} // for calls under way: about tokens that are not known, and about known ones
	known    *otter.Cache[digest, struct{}]
	refused  *otter.Cache[digest, *verified]
	peers    *peers

	mu         sync.Mutex
	complained time.Time // when an answer that cannot be used was last logged
}

type digest = [sha256.Size]byte

func newIntrospector(i Introspection, spawn func(func(context.Context)), opt Options) *introspector {
	if i.AudienceClaim == "" {
		i.AudienceClaim = "aud"
	}
	if opt.MayBeKey == nil { // nothing is sent anywhere before somebody can say what it is
		opt.MayBeKey = func(context.Context, string) (bool, error) { return false, errors.New("nobody knows the API keys") }
	}
	return &introspector{
		Introspection: i, client: opt.Client, log: opt.Log, now: opt.Now, spawn: spawn, mayBeKey: opt.MayBeKey, peers: newPeers(i.MaxRefusals),
		room: [2]chan struct{}{make(chan struct{}, maxAsking), make(chan struct{}, maxAsking)},
		known: otter.Must(&otter.Options[digest, struct{}]{
			MaximumSize: maxKnown, ExpiryCalculator: otter.ExpiryAccessing[digest, struct{}](opt.Timing.MaxLifetime),
		}),
		refused: otter.Must(&otter.Options[digest, *verified]{
			MaximumSize: maxRefused, ExpiryCalculator: otter.ExpiryWriting[digest, *verified](max(knownFor, i.NegativeTTL)),
		}),
		breaker: gobreaker.NewCircuitBreaker[map[string]any](gobreaker.Settings{
			Name: i.URL, Timeout: breakFor, IsSuccessful: func(err error) bool { return !isDown(err) },
			ReadyToTrip:   func(c gobreaker.Counts) bool { return c.ConsecutiveFailures >= tripAfter },
			OnStateChange: func(url string, _, to gobreaker.State) { reportBreaker(opt.Log, url, to) },
		}),
	}
}

func (in *introspector) close() {
	in.known.StopAllGoroutines()
	in.refused.StopAllGoroutines()
	in.peers.close()
}

func reportBreaker(log *slog.Logger, url string, to gobreaker.State) {
	switch to {
	case gobreaker.StateOpen:
		log.Error("introspection does not answer: its tokens are unavailable", "url", url)
	case gobreaker.StateClosed:
		log.Info("introspection answers again", "url", url)
	}
}

// introspect asks about a token, or waits for the answer that somebody else waits for, as long as the context allows. The
// answer is remembered before anybody is told, so that who comes a moment later does not ask again.
func (v *Verifier) introspect(ctx context.Context, b *authz.Bearer, k cacheKey, now time.Time) (*verified, error) {
	in := v.introspector
	if in == nil || !plausible(b.Text) {
		return nil, malformed("a text that is neither a JSON Web Token nor a bearer token of another kind")
	}
	if t, ok := in.refused.GetIfPresent(k.sum); ok && now.Before(t.recheck) {
		return t, nil
	}
	// API keys come by the same scheme, and a token server is no place to send one to.
	switch key, err := in.mayBeKey(ctx, b.Text); {
	case err != nil:
		return nil, refuse(authz.TokenUnavailable, "whether it is an API key cannot be told now")
	case key:
		return nil, malformed("an API key is not a token")
	}
	_, known := in.known.GetIfPresent(k.sum)
	if !known && !in.peers.may(b.Peer, now) {
		return nil, refuse(authz.TokenUnavailable, "too many tokens that are not good came from there")
	}
	type outcome struct {
		t   *verified
		err error
	}
	done := make(chan outcome, 1)
	mine := *b // for longer than the request
	in.spawn(func(work context.Context) {
		t, err, _ := in.flights.Do(mine.Text, func() (any, error) { return v.asked(work, &mine, k, known, now) })
		o := outcome{err: err}
		o.t, _ = t.(*verified)
		done <- o
	})
	select {
	case o := <-done:
		return o.t, o.err
	case <-ctx.Done():
		return nil, refuse(authz.TokenUnavailable, "its server did not answer in time")
	}
}

// asked asks about a token and remembers the answer, whatever it is. The error says that there was none.
func (v *Verifier) asked(ctx context.Context, b *authz.Bearer, k cacheKey, known bool, now time.Time) (*verified, error) {
	in := v.introspector
	if t := v.remembered(k, now); t != nil { // from a call that has ended since
		return t, nil
	}
	if t, ok := in.refused.GetIfPresent(k.sum); ok && now.Before(t.recheck) {
		return t, nil
	}
	answer, err := in.ask(ctx, b.Text, known)
	var said *answerError
	switch {
	case errors.As(err, &said): // it is about this token, and asked again it would say the same
		in.complain(err)
		if !said.aboutUs {
			in.peers.refused(b.Peer, now, said.retryAfter)
		}
		return in.refuse(k, authz.TokenUnavailable, err.Error(), now), nil
	case err != nil:
		return nil, err
	}
	t, err := v.introspected(answer, now)
	var bad *authz.TokenError
	switch {
	case errors.As(err, &bad):
		in.peers.refused(b.Peer, now, 0)
		in.known.Invalidate(k.sum)
		return in.refuse(k, bad.Status, bad.Text, now), nil
	case err != nil:
		return nil, err
	}
	t.fact.Digest = credential.TokenDigest(b.Text)
	v.cache.Set(k, t)
	in.known.Set(k.sum, struct{}{})
	return t, nil
}

// refuse remembers that a token is not good, apart from those that are: a flood of made-up ones takes no room of theirs.
func (in *introspector) refuse(k cacheKey, status authz.TokenStatus, fault string, now time.Time) *verified {
	t := &verified{fact: authz.TokenFact{Status: status, Fault: fault}, recheck: now.Add(in.NegativeTTL)}
	in.refused.Set(k.sum, t)
	return t
}

// plausible reports whether a text can be a bearer token (RFC 6750 section 2.1, b64token).
func plausible(text string) bool {
	const b64token = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~+/"
	body := strings.TrimRight(text, "=")
	return body != "" && len(text) <= maxOpaque && strings.Trim(body, b64token) == ""
}

// introspected reads an answer (RFC 7662 section 2.2). The error says why the token is not good.
func (v *Verifier) introspected(answer map[string]any, now time.Time) (*verified, error) {
	in := v.introspector
	if answer["active"] != true {
		// It expired, was revoked, or was never issued: the server does not say which, and nothing is known of it.
		return nil, refuse(authz.TokenInactive, "its server says that it is not active")
	}
	t := &verified{fact: authz.TokenFact{Status: authz.TokenValid, Issuer: in.Issuer, Claims: answer, Scopes: scopes(answer)}}
	if err := v.times(answer, t); err != nil {
		return nil, err
	}
	if err := t.read(answer, payers{in.AccountClaim, in.PlanClaim, in.Accounts}, isAccess); err != nil {
		return nil, err
	}
	if t.fact.IssuedAt.IsZero() {
		// Servers need not say when a token was issued. One that tells the end only must not have it live longer than
		// what revokes it is kept.
		if last := now.Add(v.opt.Timing.MaxLifetime + v.opt.Timing.Skew); t.until.IsZero() || t.until.After(last) {
			return nil, malformed("the answer says neither exp nor iat, or the token lives longer than max_lifetime")
		}
		t.fact.ExpiresAt = time.Time{} // a server may move the end while the token is used: what revokes it is kept for good
	}
	if iss := answer["iss"]; iss != nil && iss != in.Issuer {
		return nil, refuse(authz.TokenUntrustedIssuer, "the answer is about another issuer's token")
	}
	ours, err := addressed(answer, in.AudienceClaim, in.Audiences)
	if err != nil {
		return nil, err
	}
	if len(in.Audiences) > 0 && !ours {
		t.fact.Status = authz.TokenWrongAudience
	}
	t.recheck = now.Add(in.TTL)
	return t, nil
}

// answerError is an answer that says nothing of the token, but that the server is at work.
type answerError struct {
	text       string
	aboutUs    bool          // it does not let us ask: no caller is to blame
	retryAfter time.Duration // with 429: how long the server wants to be left alone
}

func (e *answerError) Error() string { return e.text }

// complain tells the operator, once in a minute, of an answer that cannot be used. Any caller may have caused it.
func (in *introspector) complain(err error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if now := in.now(); in.complained.IsZero() || now.Sub(in.complained) >= time.Minute {
		in.complained = now
		in.log.Warn("introspection gave an answer that cannot be used", "error", err)
	}
}

// isDown reports whether an error says that the server is out of order: it cannot be reached, does not answer in time, or
// answers 5xx. What it answers else may be for what it was asked.
func isDown(err error) bool {
	var said *answerError
	return err != nil && !errors.As(err, &said)
}

// ask makes a call, unless too many are under way or the last ones failed.
func (in *introspector) ask(ctx context.Context, text string, known bool) (map[string]any, error) {
	room := in.room[0]
	if known {
		room = in.room[1]
	}
	select {
	case room <- struct{}{}:
		defer func() { <-room }()
	default:
		return nil, fmt.Errorf("%d tokens are being asked about", maxAsking)
	}
	return in.breaker.Execute(func() (map[string]any, error) { return in.call(ctx, text) })
}

// call is one call (RFC 7662 section 2.1).
func (in *introspector) call(ctx context.Context, text string) (map[string]any, error) {
	ctx, cancel := context.WithTimeout(ctx, in.Timeout)
	defer cancel()
	form := url.Values{"token": {text}, "token_type_hint": {"access_token"}}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, in.URL, strings.NewReader(form.Encode()))
	if err != nil {
		return nil, err
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("Accept", "application/json")
	r.SetBasicAuth(url.QueryEscape(in.ClientID), url.QueryEscape(in.Secret))
	resp, err := in.client.Do(r)
	if err != nil {
		return nil, err
	}
	body, err := read(resp, in.URL)
	var status *statusError
	switch {
	case errors.As(err, &status) && status.code < 500:
		aboutUs := status.code == http.StatusUnauthorized || status.code == http.StatusForbidden
		return nil, &answerError{text: err.Error(), aboutUs: aboutUs, retryAfter: retryAfter(resp, status.code)}
	case errors.Is(err, errDocument):
		return nil, &answerError{text: err.Error()}
	case err != nil:
		return nil, err
	}
	answer, err := decodeObject(body)
	if err != nil {
		return nil, &answerError{text: fmt.Sprintf("the answer of %s %v", in.URL, err)}
	}
	if _, ok := answer["active"].(bool); !ok {
		return nil, &answerError{text: in.URL + " did not say whether the token is active"}
	}
	return answer, nil
}

// retryAfter is how long a server that is asked too often wants to be left alone (RFC 6585 section 4).
func retryAfter(resp *http.Response, code int) time.Duration {
	secs, err := strconv.Atoi(resp.Header.Get("Retry-After"))
	if code != http.StatusTooManyRequests || err != nil || secs < 0 {
		return 0
	}
	return min(time.Duration(secs)*time.Second, time.Minute)
}
