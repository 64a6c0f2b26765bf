package evaluators

import (
	"bytes"
	"encoding/json"
	"fmt"
	"testing/fstest"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/extauthz"
	"github.com/tollkeeper-authz/tollkeeper/authz/policy/bundle"
)

// dropInRow asks each policy of the cases of OPA's Envoy plugin about the request of its case. Requests that no policy sees, because
// they cannot be read, are left out.
func dropInRow(lines []byte) (Row, error) {
	row := Row{Name: "drop-in cases' policies"}
	for line := range bytes.Lines(lines) {
		if len(bytes.TrimSpace(line)) == 0 {
			continue
		}
		var c struct {
			ID, Policy, Query string
			Request           json.RawMessage
			Config            struct {
				SkipBody   bool   `json:"skip_request_body_parse"`
				Descriptor []byte `json:"descriptor_b64"`
			}
		}
		if err := json.Unmarshal(line, &c); err != nil {
			return Row{}, fmt.Errorf("the cases of OPA's Envoy plugin: %w", err)
		}
		opt := extauthz.Options{SkipBody: c.Config.SkipBody}
		if len(c.Config.Descriptor) > 0 {
			var err error
			if opt.Descriptors, err = extauthz.ReadDescriptors(c.Config.Descriptor); err != nil {
				return Row{}, fmt.Errorf("%s: %w", c.ID, err)
			}
		}
		r, err := extauthz.DecodeJSON(c.Request, extauthz.Texts{}, opt)
		if err != nil {
			return Row{}, fmt.Errorf("%s: %w", c.ID, err)
		}
		if r.Fault != "" {
			continue
		}
		p := &Policy{source: bundle.FS(fstest.MapFS{"p.rego": {Data: []byte(c.Policy)}}), query: c.Query}
		row.Cases = append(row.Cases, Case{Name: c.ID, Policy: p, Requests: []*authz.Request{r}, Want: Either})
	}
	return row, nil
}
