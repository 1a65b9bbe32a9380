package board_test

import (
	"testing"

	"github.com/jumplead/jumplead/hw/hwtest/lawtest"
)

func TestLaws(t *testing.T) {
	lawtest.Check(t, lawtest.Ban{
		From:    []string{"./board/..."},
		Imports: []string{"./..."},
		Why:     "boards are data: what they are called is good for the exporter and for what builds its image",
	})
}
