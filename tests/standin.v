// A stand-in for the core: on a write to register 0 it fetches once, copies bursts from port 0 to port 0, then raises irq.
module dpu_top #(parameter B = 16) (
  input clk, input rst, output reg irq,
  input s_axi_awvalid, output s_axi_awready, input [7:0] s_axi_awaddr,
  input s_axi_wvalid, output s_axi_wready, input [31:0] s_axi_wdata, input [3:0] s_axi_wstrb,
  output reg s_axi_bvalid, input s_axi_bready, output [1:0] s_axi_bresp,
  input s_axi_arvalid, output s_axi_arready, input [7:0] s_axi_araddr,
  output reg s_axi_rvalid, input s_axi_rready, output reg [31:0] s_axi_rdata, output [1:0] s_axi_rresp,
  output reg m_axi_fetch_arvalid, input m_axi_fetch_arready, output [63:0] m_axi_fetch_araddr, output [7:0] m_axi_fetch_arlen,
  output [2:0] m_axi_fetch_arsize, output [1:0] m_axi_fetch_arburst, output [15:0] m_axi_fetch_aruser,
  input m_axi_fetch_rvalid, output m_axi_fetch_rready, input [8*B-1:0] m_axi_fetch_rdata, input [1:0] m_axi_fetch_rresp, input m_axi_fetch_rlast,
  output reg m_axi0_arvalid, input m_axi0_arready, output [63:0] m_axi0_araddr, output [7:0] m_axi0_arlen,
  output [2:0] m_axi0_arsize, output [1:0] m_axi0_arburst, output [15:0] m_axi0_aruser,
  input m_axi0_rvalid, output m_axi0_rready, input [8*B-1:0] m_axi0_rdata, input [1:0] m_axi0_rresp, input m_axi0_rlast,
  output reg m_axi0_awvalid, input m_axi0_awready, output [63:0] m_axi0_awaddr, output [7:0] m_axi0_awlen,
  output [2:0] m_axi0_awsize, output [1:0] m_axi0_awburst, output [15:0] m_axi0_awuser,
  output reg m_axi0_wvalid, input m_axi0_wready, output [8*B-1:0] m_axi0_wdata, output [B-1:0] m_axi0_wstrb, output m_axi0_wlast,
  input m_axi0_bvalid, output m_axi0_bready, input [1:0] m_axi0_bresp,
  output reg [4:0] trace_start, output reg [4:0] trace_done);
  // registers: 0 start, 1 fetch address, 2 read address, 3 write address, 4 bytes, 5 bursts, 6 response seen, 7 sum of fetched bytes
  reg [31:0] r [0:15];
  wire accept = s_axi_awvalid & s_axi_wvalid & ~s_axi_bvalid;
  assign s_axi_awready = accept, s_axi_wready = accept, s_axi_bresp = 0, s_axi_rresp = 0;
  assign s_axi_arready = s_axi_arvalid & ~s_axi_rvalid;
  localparam SIZE = $clog2(B);
  wire [31:0] n = r[4];
  wire [7:0] len = (r[2] % B + n + B - 1) / B - 1;
  assign m_axi_fetch_araddr = r[1], m_axi_fetch_arlen = 1024 / B - 1, m_axi_fetch_arsize = SIZE, m_axi_fetch_arburst = 1, m_axi_fetch_aruser = 1023, m_axi_fetch_rready = 1;
  reg [15:0] asked, wrote, got, put, answered, sent;
  assign m_axi0_araddr = r[2] + asked * 1024, m_axi0_arlen = len, m_axi0_arsize = SIZE, m_axi0_arburst = 1, m_axi0_aruser = n - 1, m_axi0_rready = 1;
  assign m_axi0_awaddr = r[3] + wrote * 1024, m_axi0_awlen = len, m_axi0_awsize = SIZE, m_axi0_awburst = 1, m_axi0_awuser = n - 1, m_axi0_bready = 1;
  reg [8*B-1:0] buffer [0:4095];
  wire [31:0] first_beat = put % (len + 1);
  assign m_axi0_wdata = buffer[put], m_axi0_wlast = first_beat == len;
  genvar i;
  generate for (i = 0; i < B; i = i + 1) begin : strobes
    assign m_axi0_wstrb[i] = (first_beat * B + i >= r[2] % B) && (first_beat * B + i < r[2] % B + n);
  end endgenerate
  reg [2:0] state;
  integer k;
  always @(posedge clk) begin
    trace_start <= 0; trace_done <= 0;
    if (accept) begin s_axi_bvalid <= 1; r[s_axi_awaddr[5:2]] <= s_axi_wdata; end
    if (s_axi_bvalid & s_axi_bready) s_axi_bvalid <= 0;
    if (s_axi_arvalid & s_axi_arready) begin s_axi_rvalid <= 1; s_axi_rdata <= r[s_axi_araddr[5:2]]; end
    if (s_axi_rvalid & s_axi_rready) s_axi_rvalid <= 0;
    if (accept && s_axi_awaddr == 0) begin irq <= 0; if (s_axi_wdata[0]) begin m_axi_fetch_arvalid <= 1; r[6] <= 0; r[7] <= 0; state <= 1; asked <= 0; wrote <= 0; got <= 0; put <= 0; answered <= 0; sent <= 0; end end
    if (m_axi_fetch_arvalid & m_axi_fetch_arready) m_axi_fetch_arvalid <= 0;
    if (m_axi_fetch_rvalid) begin
      r[6] <= r[6] | m_axi_fetch_rresp;
      r[7] <= r[7] + m_axi_fetch_rdata[7:0];
      if (m_axi_fetch_rlast) begin state <= 2; m_axi0_arvalid <= 1; trace_start[0] <= 1; end
    end
    if (m_axi0_arvalid & m_axi0_arready) begin
      asked <= asked + 1;
      if (asked + 1 == r[5]) m_axi0_arvalid <= 0;
    end
    if (m_axi0_rvalid) begin
      r[6] <= r[6] | m_axi0_rresp;
      buffer[got] <= m_axi0_rdata; got <= got + 1;
      if (got + 1 == (len + 1) * r[5]) begin trace_done[0] <= 1; trace_start[4] <= 1; m_axi0_awvalid <= 1; end
    end
    if (m_axi0_awvalid & m_axi0_awready) begin wrote <= wrote + 1; if (wrote + 1 == r[5]) m_axi0_awvalid <= 0; m_axi0_wvalid <= 1; end
    if (m_axi0_wvalid & m_axi0_wready) begin put <= put + 1; if (put + 1 == (len + 1) * r[5]) m_axi0_wvalid <= 0; end
    if (m_axi0_bvalid) begin r[6] <= r[6] | m_axi0_bresp; answered <= answered + 1; if (answered + 1 == r[5]) begin irq <= 1; trace_done[4] <= 1; end end
    if (rst) begin irq <= 0; s_axi_bvalid <= 0; s_axi_rvalid <= 0; m_axi_fetch_arvalid <= 0; m_axi0_arvalid <= 0; m_axi0_awvalid <= 0; m_axi0_wvalid <= 0; trace_start <= 0; trace_done <= 0; for (k = 0; k < 16; k = k + 1) r[k] <= 0; end
  end
endmodule
