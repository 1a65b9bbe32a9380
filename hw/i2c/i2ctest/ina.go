package i2ctest

import (
	"math"
	"sync"
)

// INA is a model of a power meter of Texas Instruments: an INA219 (data sheet SBOS448G), INA226 (SBOS547A) or INA260
// (SBOS656C). It measures what Set says, to the resolution and within the ranges of its converters, and forgets its settings
// when its power fails.
type INA struct {
	Model int     // 219, 226, 260
	Shunt float64 // ohms; of an INA260 it is inside

	mu        sync.Mutex
	regs      registers
	config    uint16
	calib     uint16
	busy      int // conversions until there is a result
	writes    int
	volts     float64
	amps      float64
	Converges int // reads of the flag until a conversion is done after the settings changed
}

// NewINA makes a meter as it is after power-on.
func NewINA(model int, shunt float64) *INA {
	m := &INA{Model: model, Shunt: shunt, Converges: 2}
	m.Reset()
	return m
}

// Set is what there is to measure, in volts and amperes.
func (m *INA) Set(volts, amps float64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.volts, m.amps = volts, amps
}

// Reset is a failure of the chip's power.
func (m *INA) Reset() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.reset()
}

func (m *INA) reset() {
	m.config = map[int]uint16{219: 0x399f, 226: 0x4127, 260: 0x6127}[m.Model]
	m.calib, m.busy = 0, m.Converges
}

// Writes is how often a register was written.
func (m *INA) Writes() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.writes
}

// Tx is the chip's side of a transaction.
func (m *INA) Tx(w, r []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.regs.tx(w, r, m.get, m.set)
}

// clip is a value in steps of a converter, which goes from -limit to limit.
func clip(v, step float64, limit int) uint16 {
	n := math.Round(v / step)
	return uint16(int16(math.Max(-float64(limit), math.Min(float64(limit), n))))
}

func (m *INA) ready() uint16 {
	if m.busy > 0 {
		m.busy--
		return 0
	}
	return 1
}

func (m *INA) get(reg byte) uint16 {
	if reg == 0 {
		return m.config
	}
	if m.Model == 219 {
		switch reg {
		case 1: // PGA: 40 mV, 80, 160, 320
			return clip(m.amps*m.Shunt, 10e-6, 4000<<(m.config>>11&3))
		case 2: // BRNG: 16 V or 32 V
			limit := 4000
			if m.config&0x2000 != 0 {
				limit = 8000
			}
			return clip(math.Max(0, m.volts), 4e-3, limit)<<3 | m.ready()<<1
		case 3, 4:
			return 0 // nobody has calibrated it
		case 5:
			return m.calib
		}
		return 0xffff
	}
	switch reg {
	case 1:
		if m.Model == 260 {
			return clip(m.amps, 1.25e-3, 0x7fff)
		}
		return clip(m.amps*m.Shunt, 2.5e-6, 0x7fff)
	case 2:
		return clip(math.Max(0, m.volts), 1.25e-3, 0x7fff)
	case 5:
		return m.calib
	case 6:
		return m.ready() << 3
	case 0xfe:
		return 0x5449
	case 0xff:
		return map[int]uint16{226: 0x2260, 260: 0x2270}[m.Model]
	}
	return 0
}

func (m *INA) set(reg byte, v uint16) {
	m.writes++
	switch reg {
	case 0:
		if v&0x8000 != 0 {
			m.reset()
			return
		}
		m.config, m.busy = v, m.Converges
	case 5:
		m.calib = v &^ 1
	}
}
