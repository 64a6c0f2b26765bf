package check

import (
	"strings"
	"testing"

	"github.com/tollkeeper-authz/tollkeeper/authz"
)

// TestIsOurHeader_FoldsAsServersDo uses names that servers turn into the same variable, and names that they do not.
func TestIsOurHeader_FoldsAsServersDo(t *testing.T) {
	for name, want := range map[string]bool{
		"x-tollkeeper-account": true, "x_tollkeeper_account": true, "x.tollkeeper.account": true, "x-tollkeeper_key.id": true,
		"x~tollkeeper!": true, "x-authz-reason": true, "x_authz.decision-id": true,
		"x-tollkeeper": false, "xtollkeeper-account": false, "x-tollkeepers-account": false, "x0tollkeeper-account": false, "x-authz-reasons": false,
		"my-x-tollkeeper-account": false, "": false,
	} {
		if isOurHeader(name) != want {
			t.Errorf("%q: %t", name, !want)
		}
	}
}

// TestDropKey_RemovesEverySpelling sends a second header that CGI cannot tell from the key's header.
func TestDropKey_RemovesEverySpelling(t *testing.T) {
	in := authz.Headers{{Name: "x-api-key", Value: "K"}, {Name: "x_api_key", Value: "L"}, {Name: "x.api-key", Value: "M"}, {Name: "x-api-keys", Value: "N"}}
	var out authz.Answer
	dropKey(&out, in, []place{{"header", "x-api-key"}})
	if got := strings.Join(out.RemoveRequestHeaders, " "); got != "x-api-key x_api_key x.api-key" {
		t.Errorf("removes %q", got)
	}
}
