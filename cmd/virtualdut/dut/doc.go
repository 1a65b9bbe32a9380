// Package dut is a virtual device under test: a small computer with a supply rail, a serial console, an SD card and a
// web page, for trying out a harness where there is no bench. Nothing in it is scripted from outside. The console speaks
// because the rail is on, the page is reachable because the console has booted, the current is what the load draws;
// switch the rail off and all three stop at once, as a board does when its plug is pulled. What it boots is what is on
// the card.
//
// # Places
//
// A running device owns a directory, in which its places have fixed names, so that a configuration can name them:
//
//	DIR/control.sock   a Unix stream socket: the rail's switch and meter, the card's mux, the console's cable
//	DIR/uart           a symbolic link to the terminal that is the serial console; gone while its cable is unplugged
//	DIR/card           the content of the SD card, for whoever has it on the host's side
//
// and one loopback TCP port, the device's own. The files and the port are taken while the device runs, whether
// its rail is on or off. Two devices cannot share a directory; what a killed one left behind is replaced. The card keeps
// what was written to it for the next device in the directory; an empty one is removed with the rest.
//
// When it serves, the command writes one line to standard output, "ready" and a JSON object:
//
//	ready {"control":"DIR/control.sock","uart":"DIR/uart","tcp":"127.0.0.1:8100"}
//
// # The rail
//
// A client of control.sock sends lines and receives one line for each, in order. There may be several clients, and a
// client may send its next line without waiting. A request is some words. A line ends with LF or CR LF, how much white
// space there is does not count, and a line of more than 256 bytes, its end included, is an error; what stands after the
// last line end is not a request.
//
//	on                 switch the rail on
//	off                switch the rail off; when the answer comes, the device is silent
//	read               measure
//	card SIDE          turn the mux of the SD card: to the dut, to the host, or off, to neither
//	unplug uart [S]    pull the console's cable, for S seconds if that is said
//	plug uart          and put it back
//
// The answer to each is a JSON object on one line: the state after the request,
//
//	{"rail":"on","phase":"up","voltage":4.966,"current":0.42,"card":"dut","uart":"plugged"}
//
//	rail      "on" or "off"
//	phase     what the device does: "off", "boot", "up" (console and page serve), or "halted" (shut down, rail still on)
//	voltage   at the device's input, in volts
//	current   that the device draws, in amperes
//	card      where the card is: "dut", "host" or "off"
//	uart      "plugged" or "unplugged"
//
// or, when the request was not understood or cannot be done, an object whose only key is error, and nothing was done:
//
//	{"error":"unknown request \"of\": want on, off, read, card dut|host|off, unplug uart [SECONDS] or plug uart"}
//
// Asking for the state that there is does nothing, save that unplugging again counts the seconds anew. The socket stays
// open after an error. A client that does not read its answers for 5 s is dropped.
//
// The meter has a resolution of 1 mV and 1 mA. With the rail off it reads exactly 0 and 0. With the rail on the current
// follows the load: an inrush of 2.4 A that decays within some milliseconds, 0.9 A while booting, 0.42 A when up and
// 0.18 A more for each of up to four web requests in progress, 0.05 A when halted. The voltage is 5 V less what
// 80 mΩ of supply lead cost. The same load at the same time gives the same reading.
//
// # The console
//
// The console is a UART at 115200 baud behind a pseudo-terminal, which is raw from the start. Output is paced to that
// speed, and what the device says while nobody has the terminal open is lost. With the rail on, a boot loader and a kernel
// introduce themselves, and when the boot time is over there is a shell:
//
//	dut# help
//
// It echoes what is typed. CR, LF or CR LF end a line; backspace, Ctrl-U and Ctrl-C do what they should. Input while the device
// boots, is halted or has no power is swallowed, as is what comes faster than the shell can take it.
//
// When the cable is pulled, whoever has the terminal open is hung up, and there is none to open; the device talks on, to
// nobody. When it is back, the terminal is a new one behind the same link.
//
// # The SD card
//
// The boot loader boots what is on the card, and says what that is: the first line of the image, if it is text, its size,
// and the beginning of its SHA-256 sum. An empty card boots the firmware that the factory put into the device. Where
// there is no card on the device's side of the mux, the boot loader waits for one. A card that comes or goes while the
// device is up is told of, and matters at the next boot. Any file is an image; replace DIR/card while the mux is on the
// host's side.
//
// # The web page
//
// Before the first prompt the device starts an HTTP/1.1 server on its TCP port:
//
//	GET /           how the device is and what it booted, as text
//	POST /echo      answers with the request's body
//	GET /bytes?n=N  N bytes, 0 to 255 over and over
//	POST /sink      reads the body and answers with the number of bytes
//
// At all other times, connections to the port are refused. A connection that is open when the server stops, because
// the rail fell or the device was rebooted or shut down, is reset.
package dut
